//! What waits for several.

use super::Memory;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Something that waits for several, or for nobody in particular; it counts once as long as anybody waits for it.
#[derive(Debug)]
pub struct SharedBytes {
    memory: Arc<Memory>,
    bytes: usize,
    waiting: AtomicUsize,
}

/// One who waits for it, until dropped.
#[derive(Debug)]
pub struct Share(Arc<SharedBytes>);

impl SharedBytes {
    /// Of so many bytes, which nobody waits for yet.
    pub fn new(memory: &Arc<Memory>, bytes: usize) -> Arc<SharedBytes> {
        Arc::new(SharedBytes { memory: memory.clone(), bytes, waiting: AtomicUsize::new(0) })
    }

    /// One more waits for it.
    pub fn wait(self: &Arc<Self>) -> Share {
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.memory.shared.fetch_add(self.bytes, Ordering::Relaxed);
        }
        Share(self.clone())
    }
}

impl Share {
    /// Who else waits for it, this one included.
    pub fn count(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.memory.shared.fetch_sub(self.0.bytes, Ordering::Relaxed);
        }
    }
}
