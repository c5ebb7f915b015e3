//! A child's end of a stream to an engine.

use super::gate::{Gate, Late, Question, SLICE, slices};
use crate::engine::handoff::PATIENCE;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A stream that is waited for in slices, for as long as its question may.
#[derive(Debug)]
pub struct PatientStream {
    stream: UnixStream,
    gate: Option<Gate>,
    question: Option<Question>,
    /// Without a question: how many slices a wait may take, and how many it has taken.
    patience: u32,
    waited: u32,
}

impl PatientStream {
    /// Over this stream; whatever is asked goes past the gate.
    ///
    /// # Errors
    /// The stream takes no timeouts.
    pub fn new(stream: UnixStream, gate: Option<Gate>, question: Option<Question>) -> io::Result<PatientStream> {
        stream.set_read_timeout(Some(SLICE))?;
        stream.set_write_timeout(Some(SLICE))?;
        Ok(PatientStream { stream, gate, question, patience: slices(PATIENCE), waited: 0 })
    }

    /// How long an answer may take where there is no gate.
    pub fn be_patient(&mut self, patience: Duration) {
        self.patience = slices(patience);
    }

    /// What is going to be asked.
    pub fn ask(&mut self, question: Option<Question>) {
        self.question = question;
    }

    /// Something is going to be asked, which has not passed the gate yet.
    ///
    /// # Errors
    /// It is not to be asked now.
    pub fn enter(&mut self) -> Result<(), Late> {
        self.question = self.gate.map(|gate| gate.enter(PATIENCE)).transpose()?;
        Ok(())
    }

    pub fn answered(&mut self) {
        if let Some(question) = self.question.take() {
            question.answered();
        }
    }

    /// What was asked, for another stream.
    pub fn take_question(&mut self) -> Option<Question> {
        self.question.take()
    }

    fn patiently<T>(&mut self, mut step: impl FnMut(&mut UnixStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            match step(&mut self.stream) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                outcome => {
                    self.waited = 0;
                    return outcome;
                }
            }
        }
    }
}

/// What can be written to, though it may take its time.
pub trait Wait: Write + AsFd {
    /// It has taken nothing within its timeout.
    ///
    /// # Errors
    /// It is to be given up.
    fn wait(&mut self) -> io::Result<()>;

    /// What was asked over it is asked of somebody else.
    fn pass_on(&mut self) {}
}

impl Wait for UnixStream {
    fn wait(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Wait for PatientStream {
    fn pass_on(&mut self) {
        if let Some(question) = &mut self.question {
            question.pass_on();
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        match &mut self.question {
            Some(question) => question.wait()?,
            None => {
                self.waited += 1;
                if self.waited >= self.patience {
                    return Err(Late::NoAnswer.into());
                }
            }
        }
        Ok(())
    }
}

impl Read for PatientStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.read(buffer))
    }
}

impl Write for PatientStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for PatientStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
