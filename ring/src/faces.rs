//! The three faces of an io_uring (submitter, submission queue, completion queue), held beside the ring that they borrow
//! from, and an end in the right order.

use std::mem::ManuallyDrop;

use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter};

/// An io_uring, taken apart once instead of at each call.
pub(crate) struct Faces {
    pub(crate) submitter: ManuallyDrop<Submitter<'static>>,
    pub(crate) submissions: ManuallyDrop<SubmissionQueue<'static>>,
    pub(crate) completions: ManuallyDrop<CompletionQueue<'static>>,
    // The three borrow from it. It is boxed, and dropped after them.
    uring: ManuallyDrop<Box<IoUring>>,
    registered: bool,
}

impl Faces {
    pub(crate) fn new(uring: IoUring) -> Faces {
        let mut uring = ManuallyDrop::new(Box::new(uring));
        let address: *mut IoUring = &raw mut **uring;
        // SAFETY: the box is neither moved out of nor used again before `drop`, which ends the three faces first; so
        // the borrow that is made 'static here never outlives what it borrows from, and is the only one.
        let (submitter, submissions, completions) = unsafe { (*address).split() };
        Faces {
            submitter: ManuallyDrop::new(submitter),
            submissions: ManuallyDrop::new(submissions),
            completions: ManuallyDrop::new(completions),
            uring,
            registered: false,
        }
    }

    /// Registers the ring's own descriptor with this thread. Whether the kernel can.
    pub(crate) fn register(&mut self) -> bool {
        self.registered = self.submitter.register_ring_fd().is_ok();
        self.registered
    }
}

#[cfg(test)]
impl std::os::fd::AsRawFd for Faces {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.uring.as_raw_fd()
    }
}

impl Drop for Faces {
    fn drop(&mut self) {
        if self.registered {
            // The thread's table of registered rings holds a reference: without this the ring, and every file in it,
            // would live as long as the thread.
            let _ = self.submitter.unregister_ring_fd();
        }
        // SAFETY: each is dropped once, here, and the three that borrow from the ring before it.
        unsafe {
            ManuallyDrop::drop(&mut self.completions);
            ManuallyDrop::drop(&mut self.submissions);
            ManuallyDrop::drop(&mut self.submitter);
            ManuallyDrop::drop(&mut self.uring);
        }
    }
}
