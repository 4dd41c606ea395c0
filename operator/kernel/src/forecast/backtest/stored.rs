//! The stored form of a track record: all its numbers in base64.
//!
//! What is learned is kept to 24 bits and what is pending to a thousandth, in memory as well as in store, so that a record that was
//! read back goes on to the same bits.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BANDS, Backtest, Band, Expected, HORIZONS, LONGEST_PENDING, MODELS, Pending, Skill};
use crate::forecast::decomposition::Decomposition;
use crate::forecast::packing::{DecodeError, Reader, Writer};
use crate::forecast::regression::Regression;
use crate::forecast::spread::{Coverage, Residuals};

/// What is written for a [`Backtest`].
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Packed {
    version: u32,
    boundary: Option<i64>,
    bands: String,
}

const VERSION: u32 = 1;
const WHAT: &str = "a track record";

impl From<Backtest> for Packed {
    fn from(record: Backtest) -> Self {
        let mut writer = Writer::default();
        for band in record.bands.iter() {
            writer.number(band.pending.len() as u64);
            let mut last = 0;
            for pending in &band.pending {
                writer.signed(pending.at - last);
                last = pending.at;
                write_pending(&mut writer, pending);
            }
            for skill in &band.skills {
                for number in skill.numbers() {
                    writer.float(number);
                }
            }
            band.regression.write(&mut writer);
            band.residuals.write(&mut writer);
            for number in band.coverage.numbers() {
                writer.float(number);
            }
        }
        writer.number(u64::from(record.fitted.is_some()));
        if let Some(fitted) = &record.fitted {
            fitted.write(&mut writer);
        }
        Self {
            version: VERSION,
            boundary: record.boundary,
            bands: writer.finish(),
        }
    }
}

impl TryFrom<Packed> for Backtest {
    type Error = DecodeError;

    fn try_from(packed: Packed) -> Result<Self, DecodeError> {
        if packed.version != VERSION {
            return Err(DecodeError::Version(packed.version));
        }
        if packed.boundary.is_some_and(|at| at.unsigned_abs() > 1 << 50) {
            return Err(DecodeError::Range(WHAT));
        }
        let mut reader = Reader::new(&packed.bands, WHAT)?;
        let mut bands = Vec::with_capacity(BANDS);
        for horizon in &HORIZONS {
            bands.push(Band {
                pending: read_all_pending(&mut reader)?,
                skills: read_skills(&mut reader)?,
                regression: Regression::read(&mut reader, horizon.hours())?,
                residuals: Residuals::read(&mut reader)?,
                coverage: Coverage::of_numbers(reader.floats()?),
            });
        }
        let fitted = match reader.number()? {
            0 => None,
            1 => Some(Arc::new(Decomposition::read(&mut reader)?)),
            _ => return Err(DecodeError::Range(WHAT)),
        };
        reader.finish()?;
        Ok(Self {
            boundary: packed.boundary,
            bands: Arc::new(bands),
            fitted,
        })
    }
}

fn read_skills(reader: &mut Reader) -> Result<[Skill; MODELS], DecodeError> {
    let mut skills = [Skill::new(0.0); MODELS];
    for skill in &mut skills {
        *skill = Skill::of_numbers(reader.floats()?);
    }
    Ok(skills)
}

fn write_pending(writer: &mut Writer, pending: &Pending) {
    let given = pending.given.thousandths();
    writer.signed(i64::from(given));
    for bound in [pending.low, pending.ninety, pending.high] {
        writer.signed(i64::from(bound) - i64::from(given));
    }
    for model in pending.models {
        writer.number(u64::from(model.is_some()));
        if let Some(expected) = model {
            writer.signed(i64::from(expected.thousandths() - given));
        }
    }
}

fn read_all_pending(reader: &mut Reader) -> Result<VecDeque<Pending>, DecodeError> {
    let count = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
    if count > LONGEST_PENDING {
        return Err(DecodeError::Range(WHAT));
    }
    let (mut all, mut last) = (VecDeque::with_capacity(count), 0);
    for _ in 0..count {
        let pending = read_pending(reader, last)?;
        last = pending.at;
        all.push_back(pending);
    }
    Ok(all)
}

fn read_pending(reader: &mut Reader, last: i64) -> Result<Pending, DecodeError> {
    let bounded = |number: i64, most: i64| {
        if number.unsigned_abs() <= most.unsigned_abs() {
            Ok(number)
        } else {
            Err(DecodeError::Range(WHAT))
        }
    };
    let at = bounded(reader.signed()?, 1 << 51)? + last;
    // Thousandths of a logarithm.
    let most = 200_000;
    let given = bounded(reader.signed()?, most)?;
    let next = |reader: &mut Reader| Ok::<_, DecodeError>(given + bounded(reader.signed()?, most)?);
    let bound = |reader: &mut Reader| i32::try_from(next(reader)?).map_err(|_| DecodeError::Range(WHAT));
    let expected = |thousandths: i64| Expected::new(thousandths).ok_or(DecodeError::Range(WHAT));
    let (low, ninety, high) = (bound(reader)?, bound(reader)?, bound(reader)?);
    let mut models = [None; MODELS];
    for model in &mut models {
        *model = match reader.number()? {
            0 => None,
            1 => Some(expected(next(reader)?)?),
            _ => return Err(DecodeError::Range(WHAT)),
        };
    }
    Ok(Pending {
        at,
        models,
        given: expected(given)?,
        low,
        ninety,
        high,
    })
}
