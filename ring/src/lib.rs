//! How do we speak to io_uring safely?
