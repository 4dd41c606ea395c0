//! Counts the events of a server-sent event stream without parsing what they carry.

/// The event that ends a complete answer.
const DONE: &[u8] = b"data: [DONE]";

/// Follows a stream of bytes, however it is cut into chunks.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventCounter {
    /// The start of the current line, as much of it as matters.
    line: [u8; DONE.len()],
    /// Length of the current line so far, at most one more than fits.
    length: usize,
    events: u64,
    done: bool,
}

impl EventCounter {
    /// Takes the next bytes. Returns how many events they ended, `[DONE]` not counted.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> u64 {
        let before = self.events;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
        self.events - before
    }

    /// Whether `[DONE]` was seen: the answer is complete.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Events so far, `[DONE]` not counted.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    fn extend(&mut self, bytes: &[u8]) {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let room = self.line.len().saturating_sub(self.length);
        let taken = room.min(bytes.len());
        self.line[self.length.min(DONE.len())..][..taken].copy_from_slice(&bytes[..taken]);
        self.length = (self.length + bytes.len()).min(DONE.len() + 1);
    }

    fn end_line(&mut self) {
        if self.length == DONE.len() && self.line == *DONE {
            self.done = true;
        } else if self.length >= 5 && self.line.starts_with(b"data:") {
            self.events += 1;
        }
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"data: {\"choices\":[]}\n\ndata: {\"text\":\"data: x\"}\r\n\r\n: ping\n\nevent: x\ndata:1\n\ndata: [DONE]\n\n";

    #[test]
    fn events_are_counted_however_the_stream_is_cut() {
        for size in 1..STREAM.len() {
            let mut counter = EventCounter::default();
            let sum: u64 = STREAM.chunks(size).map(|chunk| counter.feed(chunk)).sum();
            assert_eq!(
                (sum, counter.events(), counter.is_done()),
                (3, 3, true),
                "chunks of {size}"
            );
        }
    }

    #[test]
    fn a_stream_that_stops_early_is_not_done() {
        for text in [
            "",
            "data: [DONE]",
            "data: {\"text\":\"[DONE]\"}\n\n",
            "data: [DONE] \n",
            "xdata: [DONE]\n",
        ] {
            let mut counter = EventCounter::default();
            counter.feed(text.as_bytes());
            assert!(!counter.is_done(), "{text:?}");
        }
    }
}
