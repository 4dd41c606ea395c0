//! What this machine is asked: free ports, and how much memory a process holds.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Loopback addresses whose ports were free a moment ago. All are held until all are known, so that they differ.
pub(crate) fn free_addresses<const N: usize>() -> io::Result<[SocketAddr; N]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    let mut held = Vec::with_capacity(N);
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        held.push(listener);
    }
    Ok(addresses)
}

/// Resident memory of a process in bytes; `None` if it has ended or the system has no `/proc`.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_differ_and_can_be_bound() -> io::Result<()> {
        let [one, two] = free_addresses()?;
        assert_ne!(one, two);
        let _bound = (TcpListener::bind(one)?, TcpListener::bind(two)?);
        Ok(())
    }

    #[test]
    fn a_process_that_runs_holds_memory_and_one_that_does_not_is_unknown() {
        assert!(resident_bytes(std::process::id()) > Some(1 << 20));
        // Ids end at 2^22.
        assert_eq!(resident_bytes(1 << 23), None);
    }
}
