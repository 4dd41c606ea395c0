//! The same bytes for every run: a file that is held open, or a copy of what can be read only once.

use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::{TraceError, TraceReader};

/// Bytes that are read at once.
pub(super) const BUFFER: usize = 64 * 1_024;

/// A trace's file.
///
/// It stays open: whoever renames another file to its name changes nothing. Who writes to it is noticed, see [`Self::unchanged`]. What is
/// no file, such as a pipe, is copied to an unnamed one in the folder for temporary files.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    file: Arc<File>,
    /// When it was opened; `None` for a copy, which nobody else can reach.
    opened: Option<State>,
}

/// What a write to a file changes.
#[derive(Debug, PartialEq, Eq)]
struct State {
    length: u64,
    modified: Option<SystemTime>,
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

impl TraceFile {
    /// Opens `path`, and reads it to its end if it can be read only once.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TraceError> {
        let path = path.into();
        let opening = |source| TraceError::Open {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(opening)?;
        let metadata = file.metadata().map_err(opening)?;
        if metadata.is_dir() {
            return Err(opening(io::ErrorKind::IsADirectory.into()));
        }
        let (file, opened) = if metadata.is_file() {
            (file, Some(State::of(&metadata)))
        } else {
            let copy = copy(file).map_err(|source| TraceError::Copy {
                path: path.clone(),
                source,
            })?;
            (copy, None)
        };
        Ok(Self {
            path,
            file: Arc::new(file),
            opened,
        })
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it from its start, whoever else does.
    pub fn read(&self) -> Result<TraceReader, TraceError> {
        let file = Arc::clone(&self.file);
        TraceReader::new(&self.path, BufReader::with_capacity(BUFFER, FromStart { file, at: 0 }))
    }

    /// An error if it was written to since it was opened.
    pub fn unchanged(&self) -> Result<(), TraceError> {
        let Some(opened) = &self.opened else { return Ok(()) };
        let metadata = self.file.metadata().map_err(|source| TraceError::Open {
            path: self.path.clone(),
            source,
        })?;
        if State::of(&metadata) == *opened {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    pub(super) fn changed(&self) -> TraceError {
        TraceError::Changed {
            path: self.path.clone(),
        }
    }
}

/// Reads a file that others read at the same time.
struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn copy(mut source: impl Read) -> io::Result<File> {
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut source, &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}
