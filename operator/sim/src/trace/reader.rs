//! Reads the CSV of a trace, one request at a time. Whatever is wrong is said with the file's name, the line and the field.

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use flate2::bufread::MultiGzDecoder;

use super::Arrival;
use super::file::BUFFER;

/// The columns, in this order.
const HEADER: [&str; 3] = ["arrival_ms", "prompt_tokens", "output_tokens"];

/// What a text file may start with, and says nothing.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// No line is longer, in bytes: what is no trace need not have lines at all.
const LONGEST: u64 = 256;

/// What every gzip file starts with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

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
        source: io::Error,
    },
    /// What is no file cannot be kept for the runs to come.
    #[error("keeping a copy of trace {} in the folder for temporary files, because it can be read only once", path.display())]
    Copy {
        /// What can be read only once.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file was written to since it was read first.
    #[error("trace {} has changed while it was replayed: every run must get the same requests", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
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
///
/// Fields may be quoted and have spaces around them; empty lines are left out.
pub struct TraceReader {
    path: PathBuf,
    source: Box<dyn BufRead + Send>,
    /// Without its end.
    line: Vec<u8>,
    /// Which line it is, from 1.
    number: u64,
    previous_ms: u64,
    failed: bool,
}

impl TraceReader {
    /// Reads from `source`, gzipped or not, and checks the header; `path` is only for messages.
    pub fn new(path: impl Into<PathBuf>, mut source: impl BufRead + Send + 'static) -> Result<Self, TraceError> {
        let path = path.into();
        let start = source.fill_buf().map_err(|source| TraceError::Open {
            path: path.clone(),
            source,
        })?;
        let source: Box<dyn BufRead + Send> = if start.starts_with(&GZIP_MAGIC) {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(source)))
        } else {
            Box::new(source)
        };
        let mut reader = Self {
            path,
            source,
            line: Vec::new(),
            number: 0,
            previous_ms: 0,
            failed: false,
        };
        let header = reader.advance()?;
        let line = reader.line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&reader.line);
        let names = line.split(|byte| *byte == b',').map(bare);
        if !header || !names.eq(HEADER.iter().map(|name| name.as_bytes())) {
            return Err(TraceError::Header {
                found: String::from_utf8_lossy(line).into_owned(),
                path: reader.path,
            });
        }
        Ok(reader)
    }

    /// Reads the next line that is not empty; false at the end.
    fn advance(&mut self) -> Result<bool, TraceError> {
        loop {
            self.line.clear();
            self.number += 1;
            let read = self.source.by_ref().take(LONGEST).read_until(b'\n', &mut self.line);
            let read = read.map_err(|source| TraceError::Read {
                path: self.path.clone(),
                line: self.number,
                source,
            })?;
            for end in [b'\n', b'\r'] {
                if self.line.last() == Some(&end) {
                    self.line.pop();
                }
            }
            if read == 0 || !self.line.is_empty() {
                return Ok(read > 0);
            }
        }
    }

    fn read(&mut self) -> Result<Option<Arrival>, TraceError> {
        if !self.advance()? {
            return Ok(None);
        }
        let mut fields = [&self.line[..0]; HEADER.len()];
        let mut found = 0;
        for field in self.line.split(|byte| *byte == b',') {
            if let Some(place) = fields.get_mut(found) {
                *place = bare(field);
            }
            found += 1;
        }
        if found != HEADER.len() {
            return Err(TraceError::Fields {
                path: self.path.clone(),
                line: self.number,
                found,
            });
        }
        let arrival = Arrival {
            arrival_ms: self.number(0, fields[0], u64::from(u32::MAX) * 1_000)?,
            prompt_tokens: self.tokens(1, fields[1])?,
            output_tokens: self.tokens(2, fields[2])?,
        };
        if arrival.arrival_ms < self.previous_ms {
            return Err(TraceError::Unsorted {
                path: self.path.clone(),
                line: self.number,
                arrival_ms: arrival.arrival_ms,
                previous_ms: self.previous_ms,
            });
        }
        self.previous_ms = arrival.arrival_ms;
        Ok(Some(arrival))
    }

    fn tokens(&self, column: usize, text: &[u8]) -> Result<u32, TraceError> {
        let number = self.number(column, text, u64::from(u32::MAX))?;
        // Cannot fail after the bound.
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    fn number(&self, column: usize, text: &[u8], max: u64) -> Result<u64, TraceError> {
        match whole(text) {
            Some(number) if number <= max => Ok(number),
            _ => Err(TraceError::Number {
                path: self.path.clone(),
                line: self.number,
                field: HEADER[column],
                found: String::from_utf8_lossy(text).into_owned(),
                max,
            }),
        }
    }
}

/// A field without spaces and quotes around it.
fn bare(field: &[u8]) -> &[u8] {
    let field = field.trim_ascii();
    let quoted = field.strip_prefix(b"\"").and_then(|field| field.strip_suffix(b"\""));
    quoted.map_or(field, <[u8]>::trim_ascii)
}

/// A number of digits only.
fn whole(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
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
    fn a_trace_reads_the_same_gzipped_or_not_and_however_its_lines_and_fields_end() {
        let plain = read(GOOD).unwrap();
        assert_eq!(plain.len(), 2);
        assert_eq!(
            (plain[1].arrival_ms, plain[1].prompt_tokens, plain[1].output_tokens),
            (4315, 396, 109)
        );
        assert_eq!(read(gzip(GOOD)).unwrap(), plain);
        for (from, to) in [
            ("\n", "\r\n"),
            ("\n", "\n\n"),
            (",", " , "),
            ("374", "\"374\""),
            ("arrival_ms", "\u{feff}\"arrival_ms\""),
        ] {
            assert_eq!(read(GOOD.replace(from, to)).unwrap(), plain, "{to:?}");
        }
        assert_eq!(read(GOOD.trim_end()).unwrap(), plain);
        // What `cat a.csv.gz b.csv.gz` gives.
        let (head, tail) = GOOD.split_at(GOOD.len() - "4315,396,109\n".len());
        assert_eq!(read([gzip(head), gzip(tail)].concat()).unwrap(), plain);
    }

    #[test]
    fn a_bad_file_is_refused_with_its_name_the_line_and_the_field() {
        let with = |line: &str| format!("{GOOD}{line}\n").into_bytes();
        let cases: [(Vec<u8>, &str); 12] = [
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
            (with("9000,,2"), "a.csv, line 4: prompt_tokens is \"\""),
            (
                with("9000,1,4294967296"),
                "a.csv, line 4: output_tokens is \"4294967296\"",
            ),
            (vec![b'7'; 10_000_000], "a.csv, line 1: the header is \"777"),
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
}
