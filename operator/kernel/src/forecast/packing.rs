//! The stored form of a history: four columns for each series, as differences in variable-length integers, in base64.
//!
//! A column of counts changes little from bucket to bucket, so that a difference mostly fits one or two bytes (LEB128
//! after zigzag, as in Protocol Buffers). Runs of equal values, such as the measured time, are one pair.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use super::buckets::Buckets;
use super::history::{Bucket, Counts, History, Series};
use crate::time::Timestamp;

/// A stored history or track record is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not base64.
    #[error("decoding {0}: not base64")]
    Text(&'static str),
    /// It ends in the middle of a number, or goes on after the last one.
    #[error("decoding {0}: wrong length")]
    Length(&'static str),
    /// A number is outside of what it may be.
    #[error("decoding {0}: a number is out of range")]
    Range(&'static str),
    /// It was written by another version.
    #[error("decoding a history or track record: unknown version {0}")]
    Version(u32),
}

/// What is written for a [`History`].
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Packed {
    version: u32,
    until_ms: Option<i64>,
    fine_first: i64,
    fine: String,
    hourly_first: i64,
    hourly: String,
}

const VERSION: u32 = 1;

impl From<History> for Packed {
    fn from(history: History) -> Self {
        Self {
            version: VERSION,
            until_ms: history.until.map(Timestamp::as_millis),
            fine_first: history.fine.first,
            fine: pack(&history.fine),
            hourly_first: history.coarse.first,
            hourly: pack(&history.coarse),
        }
    }
}

impl TryFrom<Packed> for History {
    type Error = DecodeError;

    fn try_from(packed: Packed) -> Result<Self, DecodeError> {
        if packed.version != VERSION {
            return Err(DecodeError::Version(packed.version));
        }
        let mut history = Self::new();
        unpack(&mut history.fine, packed.fine_first, &packed.fine, "5-minute buckets")?;
        unpack(
            &mut history.coarse,
            packed.hourly_first,
            &packed.hourly,
            "hourly buckets",
        )?;
        history.until = packed.until_ms.map(Timestamp::from_millis);
        Ok(history)
    }
}

fn pack(series: &Series) -> String {
    let mut writer = Writer::default();
    writer.number(series.buckets.len() as u64);
    let column = |value: fn(Bucket) -> u64| series.buckets.iter().map(value);
    writer.runs(column(|bucket| u64::from(bucket.measured_ms)));
    writer.differences(column(|bucket| bucket.counts.requests));
    writer.differences(column(|bucket| bucket.counts.prompt_tokens));
    writer.differences(column(|bucket| bucket.counts.output_tokens));
    writer.finish()
}

fn unpack(series: &mut Series, first: i64, text: &str, what: &'static str) -> Result<(), DecodeError> {
    let mut reader = Reader::new(text, what)?;
    let count = usize::try_from(reader.number()?).map_err(|_| DecodeError::Range(what))?;
    // Bucket numbers are turned into milliseconds and back: no sum of them may overflow.
    if count > series.capacity || first.unsigned_abs() > 1 << 50 {
        return Err(DecodeError::Range(what));
    }
    let measured = reader.runs(count)?;
    let requests = reader.differences(count)?;
    let prompts = reader.differences(count)?;
    let outputs = reader.differences(count)?;
    reader.finish()?;

    let mut buckets = Buckets::new();
    for index in 0..count {
        let measured_ms = u32::try_from(measured[index]).map_err(|_| DecodeError::Range(what))?;
        if u64::from(measured_ms) > series.span.as_millis() {
            return Err(DecodeError::Range(what));
        }
        let counts = Counts {
            requests: requests[index],
            prompt_tokens: prompts[index],
            output_tokens: outputs[index],
        };
        buckets.push_back(Bucket { counts, measured_ms });
    }
    (series.first, series.buckets) = (first, buckets);
    Ok(())
}

/// The nearest number that is stored without loss.
pub(crate) fn short(number: f64) -> f64 {
    f64::from(single(number))
}

/// The same in half the room.
#[expect(
    clippy::cast_possible_truncation,
    reason = "that is what it is for; the bounds keep it finite"
)]
pub(crate) fn single(number: f64) -> f32 {
    number.clamp(-1e30, 1e30) as f32
}

/// Writes numbers into base64.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// LEB128: seven bits a byte, the lowest first.
    #[expect(clippy::cast_possible_truncation, reason = "masked to seven bits")]
    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// Zigzag: small numbers of either sign stay small.
    pub(crate) fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    /// The 24 bits that [`short`] leaves.
    #[expect(clippy::cast_possible_truncation, reason = "shortened before")]
    pub(crate) fn float(&mut self, number: f64) {
        self.0.extend_from_slice(&(number as f32).to_le_bytes());
    }

    fn differences(&mut self, values: impl Iterator<Item = u64>) {
        let mut last = 0_u64;
        for value in values {
            self.signed(value.wrapping_sub(last).cast_signed());
            last = value;
        }
    }

    fn runs(&mut self, values: impl Iterator<Item = u64>) {
        let mut run: Option<(u64, u64)> = None;
        for value in values {
            match &mut run {
                Some((current, length)) if *current == value => *length += 1,
                _ => {
                    if let Some((current, length)) = run.replace((value, 1)) {
                        self.number(current);
                        self.number(length);
                    }
                }
            }
        }
        if let Some((current, length)) = run {
            self.number(current);
            self.number(length);
        }
    }

    pub(crate) fn finish(self) -> String {
        STANDARD_NO_PAD.encode(self.0)
    }
}

/// Reads what a [`Writer`] wrote.
pub(crate) struct Reader {
    bytes: std::vec::IntoIter<u8>,
    what: &'static str,
}

impl Reader {
    pub(crate) fn new(text: &str, what: &'static str) -> Result<Self, DecodeError> {
        let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| DecodeError::Text(what))?;
        Ok(Self {
            bytes: bytes.into_iter(),
            what,
        })
    }

    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = u64::from(self.bytes.next().ok_or(DecodeError::Length(self.what))?);
            let bits = byte & 0x7f;
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Range(self.what))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(crate) fn float(&mut self) -> Result<f64, DecodeError> {
        let mut bytes = [0; 4];
        for byte in &mut bytes {
            *byte = self.bytes.next().ok_or(DecodeError::Length(self.what))?;
        }
        let number = f64::from(f32::from_le_bytes(bytes));
        if number.is_finite() {
            Ok(number)
        } else {
            Err(DecodeError::Range(self.what))
        }
    }

    pub(crate) fn floats<const COUNT: usize>(&mut self) -> Result<[f64; COUNT], DecodeError> {
        let mut numbers = [0.0; COUNT];
        for number in &mut numbers {
            *number = self.float()?;
        }
        Ok(numbers)
    }

    fn differences(&mut self, count: usize) -> Result<Vec<u64>, DecodeError> {
        let mut last = 0_u64;
        (0..count)
            .map(|_| {
                last = last.wrapping_add(self.signed()?.cast_unsigned());
                Ok(last)
            })
            .collect()
    }

    fn runs(&mut self, count: usize) -> Result<Vec<u64>, DecodeError> {
        let mut values = Vec::with_capacity(count);
        while values.len() < count {
            let (value, length) = (self.number()?, self.number()?);
            let room = count - values.len();
            let length = usize::try_from(length)
                .ok()
                .filter(|length| (1..=room).contains(length));
            let length = length.ok_or(DecodeError::Range(self.what))?;
            values.resize(values.len() + length, value);
        }
        Ok(values)
    }

    pub(crate) fn finish(mut self) -> Result<(), DecodeError> {
        match self.bytes.next() {
            None => Ok(()),
            Some(_) => Err(DecodeError::Length(self.what)),
        }
    }
}
