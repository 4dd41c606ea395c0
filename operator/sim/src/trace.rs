//! Request traces: who arrives when, with how many tokens.
//!
//! A trace is a CSV file, gzipped or not, with the header `arrival_ms,prompt_tokens,output_tokens` and whole numbers,
//! sorted by arrival. It is read as a stream: a week of a busy pool does not have to fit memory. Whatever is wrong with
//! a file is said with its name, the line and the field.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use pomarium_kernel::random::SplitMix;
use serde::{Deserialize, Serialize};

/// The columns, in this order.
const HEADER: [&str; 3] = ["arrival_ms", "prompt_tokens", "output_tokens"];

/// What every gzip file starts with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Arrival {
    /// When it arrives, in ms from the start of the trace.
    pub arrival_ms: u64,
    /// Length of its prompt.
    pub prompt_tokens: u32,
    /// Length of its answer.
    pub output_tokens: u32,
}

/// A trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened.
    #[error("opening trace {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file cannot be read on, for example because the gzip stream is damaged.
    #[error("reading trace {}, line {line}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Why not.
        #[source]
        source: csv::Error,
    },
    /// The first line is not the header.
    #[error("trace {}, line 1: the header is {found:?} and should be \"arrival_ms,prompt_tokens,output_tokens\"", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What the first line is.
        found: String,
    },
    /// A line has too few or too many fields.
    #[error("trace {}, line {line}: {found} fields instead of 3", path.display())]
    Fields {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// How many there are.
        found: usize,
    },
    /// A field is no whole number, or too large.
    #[error("trace {}, line {line}: {field} is {found:?} and should be a whole number up to {max}", path.display())]
    Number {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column.
        field: &'static str,
        /// What stands there.
        found: String,
        /// The largest that is allowed.
        max: u64,
    },
    /// A line is earlier than the one before.
    #[error("trace {}, line {line}: arrival_ms {arrival_ms} is before {previous_ms} of the line above; a trace is sorted", path.display())]
    Unsorted {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Its arrival.
        arrival_ms: u64,
        /// The one above.
        previous_ms: u64,
    },
}

/// Reads a trace, one request at a time. Ends after the first error.
pub struct TraceReader {
    path: PathBuf,
    lines: csv::Reader<Box<dyn Read + Send>>,
    record: csv::ByteRecord,
    previous_ms: u64,
    failed: bool,
}

impl TraceReader {
    /// Opens `path` and checks its header. Gzip is recognised by content, not by name.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let opening = |source| TraceError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(opening)?;
        Self::new(path, BufReader::new(file)).map_err(|error| match error {
            TraceError::Read { source, .. } if source.is_io_error() => opening(io::Error::other(source)),
            other => other,
        })
    }

    /// Reads from `source`; `path` is only for messages.
    pub fn new(path: impl Into<PathBuf>, mut source: impl BufRead + Send + 'static) -> Result<Self, TraceError> {
        let path = path.into();
        let start = source.fill_buf().map_err(|source| TraceError::Open {
            path: path.clone(),
            source,
        })?;
        let plain: Box<dyn Read + Send> = if start.starts_with(&GZIP_MAGIC) {
            Box::new(MultiGzDecoder::new(source))
        } else {
            Box::new(source)
        };
        // Flexible, so that a line of the wrong length is reported in our words, as the header is.
        let lines = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(plain);
        let mut reader = Self {
            path,
            lines,
            record: csv::ByteRecord::new(),
            previous_ms: 0,
            failed: false,
        };
        let header = reader.advance()?;
        if !header || !reader.record.iter().eq(HEADER.iter().map(|name| name.as_bytes())) {
            let found: Vec<_> = reader.record.iter().map(String::from_utf8_lossy).collect();
            return Err(TraceError::Header {
                found: found.join(","),
                path: reader.path,
            });
        }
        Ok(reader)
    }

    /// Reads the next line into `record`; false at the end.
    fn advance(&mut self) -> Result<bool, TraceError> {
        let line = self.lines.position().line();
        self.lines
            .read_byte_record(&mut self.record)
            .map_err(|source| TraceError::Read {
                path: self.path.clone(),
                line,
                source,
            })
    }

    fn read(&mut self) -> Result<Option<Arrival>, TraceError> {
        if !self.advance()? {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, csv::Position::line);
        if self.record.len() != HEADER.len() {
            return Err(TraceError::Fields {
                path: self.path.clone(),
                line,
                found: self.record.len(),
            });
        }
        let arrival = Arrival {
            arrival_ms: self.number(0, line, u64::from(u32::MAX) * 1_000)?,
            prompt_tokens: self.tokens(1, line)?,
            output_tokens: self.tokens(2, line)?,
        };
        if arrival.arrival_ms < self.previous_ms {
            return Err(TraceError::Unsorted {
                path: self.path.clone(),
                line,
                arrival_ms: arrival.arrival_ms,
                previous_ms: self.previous_ms,
            });
        }
        self.previous_ms = arrival.arrival_ms;
        Ok(Some(arrival))
    }

    fn tokens(&self, column: usize, line: u64) -> Result<u32, TraceError> {
        let number = self.number(column, line, u64::from(u32::MAX))?;
        // Cannot fail after the bound.
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    fn number(&self, column: usize, line: u64, max: u64) -> Result<u64, TraceError> {
        let text = &self.record[column];
        let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        let parsed = str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
        match parsed {
            Some(number) if digits && number <= max => Ok(number),
            _ => Err(TraceError::Number {
                path: self.path.clone(),
                line,
                field: HEADER[column],
                found: String::from_utf8_lossy(text).into_owned(),
                max,
            }),
        }
    }
}

impl Iterator for TraceReader {
    type Item = Result<Arrival, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let read = self.read().transpose();
        self.failed = matches!(read, Some(Err(_)));
        read
    }
}

/// Multiplies the rate of `arrivals` by `factor`, without changing when the trace is busy and when it is not.
///
/// Whole copies are superposed, each but the first jittered by up to a minute; of a last, fractional copy every request
/// is kept with that probability. So a factor under 1 thins. The same seed gives the same requests.
pub fn scale_rate(arrivals: &[Arrival], factor: f64, seed: u64) -> Vec<Arrival> {
    const JITTER_MS: f64 = 60_000.0;
    let mut random = SplitMix::new(seed);
    let mut scaled = Vec::new();
    let mut rest = if factor.is_finite() { factor.max(0.0) } else { 1.0 };
    let mut first = true;
    while rest > 1e-9 {
        for arrival in arrivals {
            let keep = rest >= 1.0 || random.unit() < rest;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within a minute")]
            let jitter = if first { 0 } else { (random.unit() * JITTER_MS) as u64 };
            if keep {
                scaled.push(Arrival {
                    arrival_ms: arrival.arrival_ms + jitter,
                    ..*arrival
                });
            }
        }
        rest -= 1.0;
        first = false;
    }
    scaled.sort();
    scaled
}

/// The trace after its own first `lead_in_ms`, played once before it: a history for traces too short to have one, so that a rule
/// that only reacts does not begin with nothing. The scored part then starts at `lead_in_ms`.
pub fn with_lead_in(arrivals: &[Arrival], lead_in_ms: u64) -> Vec<Arrival> {
    let first = arrivals.iter().take_while(|arrival| arrival.arrival_ms < lead_in_ms);
    let later = arrivals.iter().map(|arrival| Arrival {
        arrival_ms: arrival.arrival_ms + lead_in_ms,
        ..*arrival
    });
    first.copied().chain(later).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Cursor, Write};

    use super::*;

    const GOOD: &str = "arrival_ms,prompt_tokens,output_tokens\n0,374,44\n4315,396,109\n";

    fn read(bytes: impl Into<Vec<u8>>) -> Result<Vec<Arrival>, TraceError> {
        TraceReader::new("a.csv", Cursor::new(bytes.into()))?.collect()
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_trace_reads_the_same_gzipped_or_not_and_with_either_line_ending() {
        let plain = read(GOOD).unwrap();
        assert_eq!(plain.len(), 2);
        assert_eq!(
            (plain[1].arrival_ms, plain[1].prompt_tokens, plain[1].output_tokens),
            (4315, 396, 109)
        );
        assert_eq!(read(gzip(GOOD)).unwrap(), plain);
        assert_eq!(read(GOOD.replace('\n', "\r\n")).unwrap(), plain);
        // What `cat a.csv.gz b.csv.gz` gives.
        let (head, tail) = GOOD.split_at(GOOD.len() - "4315,396,109\n".len());
        assert_eq!(read([gzip(head), gzip(tail)].concat()).unwrap(), plain);
    }

    #[test]
    fn a_bad_file_is_refused_with_its_name_the_line_and_the_field() {
        let with = |line: &str| format!("{GOOD}{line}\n").into_bytes();
        let cases: [(Vec<u8>, &str); 9] = [
            (Vec::new(), "a.csv, line 1: the header is \"\""),
            (
                b"arrival,prompt,output\n".to_vec(),
                "a.csv, line 1: the header is \"arrival,prompt,output\"",
            ),
            (b"0,374,44\n".to_vec(), "a.csv, line 1: the header is \"0,374,44\""),
            (with("9000,1"), "a.csv, line 4: 2 fields instead of 3"),
            (with("9000,1,2,3"), "a.csv, line 4: 4 fields instead of 3"),
            (with("9000,1.5,2"), "a.csv, line 4: prompt_tokens is \"1.5\""),
            (with("9000,1,-2"), "a.csv, line 4: output_tokens is \"-2\""),
            (with("soon,1,2"), "a.csv, line 4: arrival_ms is \"soon\""),
            (with("4314,1,2"), "a.csv, line 4: arrival_ms 4314 is before 4315"),
        ];
        for (bytes, expected) in cases {
            let message = read(bytes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} should say {expected:?}");
        }
    }

    #[test]
    fn a_damaged_gzip_stream_is_an_error_and_not_a_short_trace() {
        let mut bytes = gzip(&format!("{GOOD}{}", "9999,12,34\n".repeat(10_000)));
        bytes.truncate(bytes.len() / 2);
        assert!(matches!(read(bytes), Err(TraceError::Read { .. })));
    }

    #[test]
    fn scaling_the_rate_keeps_the_shape_and_the_order() {
        let trace: Vec<_> = (0..10_000)
            .map(|index| Arrival {
                arrival_ms: index * 100,
                prompt_tokens: 1,
                output_tokens: 1,
            })
            .collect();
        assert_eq!(scale_rate(&trace, 1.0, 7), trace);
        for factor in [0.25, 1.5, 3.0] {
            let scaled = scale_rate(&trace, factor, 7);
            let share = scaled.len() as f64 / trace.len() as f64 / factor;
            assert!((0.95..=1.05).contains(&share), "factor {factor} gave {}", scaled.len());
            assert!(scaled.is_sorted_by_key(|arrival| arrival.arrival_ms));
            assert_eq!(scaled, scale_rate(&trace, factor, 7));
        }
    }

    #[test]
    fn a_lead_in_repeats_the_start_and_moves_the_rest() {
        let trace: Vec<_> = [0, 400, 1_000, 5_000]
            .map(|arrival_ms| Arrival {
                arrival_ms,
                prompt_tokens: 1,
                output_tokens: 1,
            })
            .into();
        let times: Vec<u64> = with_lead_in(&trace, 1_000)
            .iter()
            .map(|arrival| arrival.arrival_ms)
            .collect();
        assert_eq!(times, [0, 400, 1_000, 1_400, 2_000, 6_000]);
    }
}
