//! The part of a trace that is replayed, read from its file for every run.

use std::ops::Range;

use super::{Arrival, Scaled, Stream, Trace, TraceError, TraceFile, TraceReader};

/// A part of a trace, at a multiple of its rate. Its times count from its first moment.
///
/// # Guarantees
/// Every run gets the same requests, or an error: a file that was written to in between is not taken for a shorter trace.
#[derive(Debug)]
pub struct Excerpt {
    file: TraceFile,
    span_ms: Range<u64>,
    found: Found,
    file_ends_ms: Option<u64>,
    /// Factor and seed, if the rate is changed.
    scaled: Option<(f64, u64)>,
}

/// What was read of the part, before its rate is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    requests: u64,
    last_ms: Option<u64>,
}

impl Found {
    fn add(&mut self, arrival: &Arrival) {
        self.requests += 1;
        self.last_ms = Some(arrival.arrival_ms);
    }
}

impl Excerpt {
    /// The requests of `file` in `span_ms`, shown to `each`. Reads the file to its end, so that damage anywhere in it is found.
    pub fn scan(file: TraceFile, span_ms: Range<u64>, mut each: impl FnMut(&Arrival)) -> Result<Self, TraceError> {
        let mut found = Found::default();
        let mut file_ends_ms = None;
        for arrival in file.read()? {
            let arrival = arrival?;
            file_ends_ms = Some(arrival.arrival_ms);
            if span_ms.contains(&arrival.arrival_ms) {
                let arrival = since(span_ms.start, arrival);
                found.add(&arrival);
                each(&arrival);
            }
        }
        file.unchanged()?;
        Ok(Self {
            file,
            span_ms,
            found,
            file_ends_ms,
            scaled: None,
        })
    }

    /// The same at `factor` times the rate; see [`Scaled`].
    #[must_use]
    pub fn at_rate(self, factor: f64, seed: u64) -> Self {
        Self {
            scaled: Some((factor, seed)),
            ..self
        }
    }

    /// Requests before the rate is changed.
    pub fn found(&self) -> u64 {
        self.found.requests
    }

    /// The last of them, in ms from the part's start.
    pub fn last_ms(&self) -> Option<u64> {
        self.found.last_ms
    }

    /// The last request of the whole file, in ms from its start.
    pub fn file_ends_ms(&self) -> Option<u64> {
        self.file_ends_ms
    }
}

impl Trace for Excerpt {
    fn requests(&self) -> Result<Stream<'_>, TraceError> {
        self.file.unchanged()?;
        let reading = Reading {
            excerpt: self,
            reader: self.file.read()?,
            found: Found::default(),
            ended: false,
        };
        Ok(match self.scaled {
            Some((factor, seed)) => Box::new(Scaled::new(reading, self.found.requests, factor, seed)),
            None => Box::new(reading),
        })
    }
}

/// One run's way through the file.
struct Reading<'a> {
    excerpt: &'a Excerpt,
    reader: TraceReader,
    found: Found,
    ended: bool,
}

impl Reading<'_> {
    fn read(&mut self) -> Result<Option<Arrival>, TraceError> {
        let Excerpt {
            file, span_ms, found, ..
        } = self.excerpt;
        for arrival in self.reader.by_ref() {
            // What is wrong now was not when the file was scanned.
            let arrival = arrival.map_err(|error| file.unchanged().err().unwrap_or(error))?;
            if arrival.arrival_ms >= span_ms.end {
                break;
            }
            if arrival.arrival_ms >= span_ms.start {
                let arrival = since(span_ms.start, arrival);
                self.found.add(&arrival);
                return Ok(Some(arrival));
            }
        }
        file.unchanged()?;
        if self.found == *found {
            Ok(None)
        } else {
            Err(file.changed())
        }
    }
}

impl Iterator for Reading<'_> {
    type Item = Result<Arrival, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let read = self.read().transpose();
        self.ended = !matches!(read, Some(Ok(_)));
        read
    }
}

fn since(start_ms: u64, arrival: Arrival) -> Arrival {
    Arrival {
        arrival_ms: arrival.arrival_ms - start_ms,
        ..arrival
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fmt::Write as _;
    use std::fs::{self, File};
    use std::io::Write as _;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use super::*;

    /// A request each second; the prompt tells which.
    fn csv(requests: u64) -> String {
        let mut text = String::from("arrival_ms,prompt_tokens,output_tokens\n");
        for index in 0..requests {
            let _ = writeln!(text, "{},{},10", index * 1_000, index + 1);
        }
        text
    }

    fn scan(path: &Path, span_ms: Range<u64>) -> Result<Excerpt, TraceError> {
        Excerpt::scan(TraceFile::open(path)?, span_ms, |_| ())
    }

    fn all(trace: &Excerpt) -> Result<Vec<Arrival>, TraceError> {
        trace.requests()?.collect()
    }

    /// A folder with such a file.
    fn written(requests: u64) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        fs::write(&path, csv(requests)).unwrap();
        (dir, path)
    }

    #[test]
    fn every_run_gets_the_part_from_its_own_start() {
        let (_dir, path) = written(100);
        let mut shown = Vec::new();
        let trace = Excerpt::scan(TraceFile::open(&path).unwrap(), 10_000..20_000, |arrival| {
            shown.push(*arrival);
        })
        .unwrap();
        assert_eq!((trace.found(), trace.last_ms()), (10, Some(9_000)));
        assert_eq!(trace.file_ends_ms(), Some(99_000));
        assert_eq!((shown[0].arrival_ms, shown[0].prompt_tokens), (0, 11));
        assert_eq!(all(&trace).unwrap(), shown);
        // Two at once do not disturb each other.
        let (mut one, mut other) = (trace.requests().unwrap(), trace.requests().unwrap());
        for arrival in &shown {
            assert_eq!(one.next().unwrap().unwrap(), *arrival);
            assert_eq!(other.next().unwrap().unwrap(), *arrival);
        }
        drop((one, other));
        let trace = trace.at_rate(3.0, 7);
        let scaled: Vec<_> = Scaled::new(shown.iter().copied().map(Ok), 10, 3.0, 7)
            .collect::<Result<_, TraceError>>()
            .unwrap();
        assert!(scaled.len() > 10);
        assert_eq!(all(&trace).unwrap(), scaled);
    }

    #[test]
    fn damage_behind_the_part_is_found_before_any_run() {
        let (_dir, path) = written(100);
        let mut file = File::options().append(true).open(&path).unwrap();
        writeln!(file, "99000,x,1").unwrap();
        let error = scan(&path, 0..5_000).unwrap_err();
        assert!(matches!(error, TraceError::Number { line: 102, .. }), "{error}");
    }

    #[test]
    fn a_file_that_is_written_to_is_an_error_and_not_a_short_trace() {
        type Write = fn(&Path);
        let writes: [(&str, Write); 4] = [
            ("cut", |path| fs::write(path, csv(5_000)).unwrap()),
            ("longer", |path| fs::write(path, csv(10_001)).unwrap()),
            ("damaged", |path| {
                fs::write(path, csv(10_000).replace("9000000,", "9000000;")).unwrap();
            }),
            ("others at the same time", |path| {
                // No trace of the write is left in the file system, but there is one request fewer.
                let last = "\n9999000,10000,10\n";
                let modified = fs::metadata(path).unwrap().modified().unwrap();
                fs::write(path, csv(10_000).replace(last, &"\n".repeat(last.len()))).unwrap();
                File::options()
                    .write(true)
                    .open(path)
                    .unwrap()
                    .set_modified(modified)
                    .unwrap();
            }),
        ];
        for (name, write) in writes {
            for begun in [false, true] {
                let (_dir, path) = written(10_000);
                let trace = scan(&path, 0..u64::MAX).unwrap();
                let mut run = begun.then(|| trace.requests().unwrap());
                if let Some(run) = &mut run {
                    assert_eq!(run.next().unwrap().unwrap().prompt_tokens, 1);
                }
                write(&path);
                let error = match run {
                    Some(run) => run.collect::<Result<Vec<_>, _>>().unwrap_err(),
                    None => all(&trace).unwrap_err(),
                };
                assert!(
                    matches!(error, TraceError::Changed { .. }),
                    "{name}, begun: {begun}: {error}"
                );
            }
        }
    }

    #[test]
    fn another_file_of_the_same_name_changes_nothing() {
        let (dir, path) = written(100);
        let trace = scan(&path, 0..u64::MAX).unwrap();
        let before = all(&trace).unwrap();
        let other = dir.path().join("b.csv");
        fs::write(&other, csv(5)).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(all(&trace).unwrap(), before);
    }

    #[test]
    fn a_pipe_is_read_once_and_replayed_as_often_as_a_file() {
        let (_dir, path) = written(10_000);
        let expected = all(&scan(&path, 0..u64::MAX).unwrap()).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(csv(10_000).as_bytes()).unwrap());
        let trace = scan(Path::new(&format!("/dev/fd/{}", reader.as_raw_fd())), 0..u64::MAX).unwrap();
        writing.join().unwrap();
        for _ in 0..2 {
            assert_eq!(all(&trace).unwrap(), expected);
        }
    }

    #[test]
    fn what_cannot_be_opened_is_said() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path(), Path::new("/nonexistent.csv")] {
            let error = scan(path, 0..u64::MAX).unwrap_err();
            assert!(matches!(error, TraceError::Open { .. }), "{error}");
        }
    }
}
