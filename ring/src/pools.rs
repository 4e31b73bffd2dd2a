//! The pools of one ring: small buffers, which most connections do with, and perhaps a few large ones for those that
//! send more at a time than a small one holds. One copy into 256 KiB costs less than sixteen into 16 KiB, and as many
//! large buffers as there are small ones would be memory that nobody needs.

use std::io;

use crate::buffers::{Buffer, Pool};
use crate::setup::Config;

/// Which pool a receive picks from: its buffer group for the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Group {
    #[default]
    Small = 0,
    Large = 1,
}

/// The small buffers, and the large ones if there are any.
pub(crate) struct Pools {
    small: Pool,
    large: Option<Pool>,
}

impl Pools {
    /// With the configuration's large buffers if `bulk`.
    pub(crate) fn new(config: &Config, bulk: bool) -> io::Result<Pools> {
        let large = if bulk {
            let (count, size) = (config.large_buffers, config.large_buffer_size);
            Some(Pool::one_by_one(count, size)?)
        } else {
            None
        };
        Ok(Pools {
            small: Pool::new(config.buffers, config.buffer_size)?,
            large,
        })
    }

    /// Each pool with its group.
    pub(crate) fn each(&mut self) -> impl Iterator<Item = (Group, &mut Pool)> {
        let small = std::iter::once((Group::Small, &mut self.small));
        small.chain(self.large.iter_mut().map(|pool| (Group::Large, pool)))
    }

    /// Whether a bulk receive would find a large buffer.
    #[inline]
    pub(crate) fn large_is_free(&self) -> bool {
        self.large.as_ref().is_some_and(|large| 0 < large.free())
    }

    /// # Panics
    /// When there are no large ones: no receive was armed with them then.
    #[inline]
    pub(crate) fn of(&mut self, group: Group) -> &mut Pool {
        match group {
            Group::Small => &mut self.small,
            Group::Large => self.large.as_mut().expect("armed with a pool that exists"),
        }
    }

    /// The pool of the small ones, which every connection can do with.
    #[inline]
    pub(crate) fn small(&self) -> &Pool {
        &self.small
    }

    /// The pool that a buffer is of; of a stranger's the small one, which refuses it.
    #[inline]
    pub(crate) fn home(&self, buffer: &Buffer) -> &Pool {
        match &self.large {
            Some(large) if large.owns(buffer) => large,
            _ => &self.small,
        }
    }

    #[inline]
    pub(crate) fn is_large(&self, buffer: &Buffer) -> bool {
        self.large.as_ref().is_some_and(|large| large.owns(buffer))
    }

    #[inline]
    pub(crate) fn release(&mut self, buffer: Buffer) {
        match &mut self.large {
            Some(large) if large.owns(&buffer) => large.release(buffer),
            _ => self.small.release(buffer),
        }
    }

    #[inline]
    pub(crate) fn publish(&mut self) {
        self.small.publish();
        if let Some(large) = &mut self.large {
            large.publish();
        }
    }

    /// See [`Pool::leak`].
    pub(crate) fn leak(&mut self) {
        for (_, pool) in self.each() {
            pool.leak();
        }
    }
}
