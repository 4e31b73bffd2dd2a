//! From what the user asked for and what the limits allow to the size of one ring.

use echometer_host::address::Address;
use echometer_host::limits;
use echometer_ring::{Config as RingConfig, Feature, Features, Ring};

use crate::config::Config;
use crate::engine::Unavailable;

/// Bytes per buffer unless `--buffer-size` says otherwise.
const BUFFER_SIZE: u32 = 16 * 1024;

/// Buffers per worker unless `--buffers` says otherwise: 2 MiB of the default size.
const BUFFERS: u32 = 128;

/// Large buffers per worker, and their size, for connections that send more at a time than a small one holds: another
/// 2 MiB. Whoever sizes the buffers gets those and no others.
const LARGE_BUFFERS: u16 = 8;
const LARGE_BUFFER_SIZE: u32 = 256 * 1024;

/// Connections per worker unless `--max-connections` says otherwise, where the descriptor limit allows as many.
const CONNECTIONS: u32 = 65_536;

/// Threads of the kernel's that may work for a worker at a time: shutdowns at a stop are all that they do.
const KERNEL_WORKERS: u32 = 1;

/// Slots that are no connection's: the listener and the stop request.
const SLOTS_OWN: u32 = 2;

/// The ring that `config` asks for.
///
/// # Errors
/// `--uring` names a feature that doesn't exist.
pub(super) fn ring_config(config: &Config) -> Result<RingConfig, Unavailable> {
    let wanted = config.connections_max.unwrap_or(CONNECTIONS);
    // Room for those over the limit too, which are accepted and closed at once.
    let wanted = wanted.saturating_add(SLOTS_OWN + 2 * config.backlog.min(1 << 15));
    // The table of direct descriptors is bounded by the soft limit (io_uring_register(2)), though its entries are not
    // counted against it. As much as allowed is fine: the engine stops accepting before the table is full.
    let hard = limits::nofile().hard;
    let _ = limits::raise_nofile(u64::from(wanted).min(hard));
    let slots = u64::from(wanted).min(limits::nofile().soft) as u32;
    let mut features = features(&config.uring)?;
    if matches!(config.listen, Address::Unix(_)) {
        // A unix socket refuses zero-copy sends (EOPNOTSUPP), and every connection would fail.
        features = features.without(Feature::SendZc);
    }
    Ok(RingConfig {
        slots,
        buffers: config.buffers.unwrap_or(BUFFERS).min(1 << 15) as u16,
        buffer_size: config.buffer_size.unwrap_or(BUFFER_SIZE),
        large_buffers: match (config.buffer_size, config.buffers) {
            (None, None) => LARGE_BUFFERS,
            _ => 0,
        },
        large_buffer_size: LARGE_BUFFER_SIZE,
        recv_bytes_max: owed_pause(config.owed_max),
        workers_max: Some(KERNEL_WORKERS),
        short_is_empty: !matches!(config.listen, Address::Unix(_)),
        features,
        failing_trials: failing_trials(),
        ..RingConfig::default()
    })
}

/// For tests: which trials of the ring are to fail, by name and separated by commas, so that what happens on kernels of that
/// kind can be seen on this one.
pub(crate) fn failing_trials() -> Vec<String> {
    let names = std::env::var("ECHOMETER_FAILING_TRIALS").unwrap_or_default();
    names.split(',').map(str::to_owned).collect()
}

/// Bytes owed at which a connection is not received from any more: a receive that is armed may bring as many again, and
/// both together are what it may owe.
pub(super) fn owed_pause(owed_max: u32) -> u32 {
    (owed_max / 2).max(1)
}

/// Connections after which accepting rests: a full table of direct descriptors would drop the next ones, where a listen
/// queue keeps them.
pub(super) fn connections_max(ring: &RingConfig) -> usize {
    ring.slots.saturating_sub(SLOTS_OWN).max(1) as usize
}

/// Vacant places below which connections are accepted one by one: before an accept that goes on by itself has heard of its
/// end, it has taken so many. A multishot one takes all that wait, and while it does as many again may come.
pub(super) fn accept_room(ring: &RingConfig, backlog_effective: u32) -> usize {
    match ring.features.has(Feature::MultishotAccept) {
        true => 2 * (backlog_effective as usize + 1),
        false => 2 * usize::from(Ring::ACCEPTS),
    }
}

/// `--uring +name,-name` over the defaults.
pub(super) fn features(switches: &[(bool, String)]) -> Result<Features, Unavailable> {
    let mut features = Features::default();
    for (on, name) in switches {
        let feature: Feature = name
            .parse()
            .map_err(|error| Unavailable::Usage(format!("--uring: {error}")))?;
        features = if *on {
            features.with(feature)
        } else {
            features.without(feature)
        };
    }
    features
        .check()
        .map_err(|error| Unavailable::Usage(format!("--uring: {error}")))?;
    Ok(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_switched_in_order() {
        let switches = [(false, "direct".to_owned()), (true, "direct".to_owned())];
        assert!(features(&switches).expect("known").has(Feature::Direct));
        assert!(
            !features(&switches[..1])
                .expect("known")
                .has(Feature::Direct)
        );
    }

    #[test]
    fn an_unknown_feature_is_a_usage_error() {
        let error = features(&[(true, "warp".into())]).unwrap_err();
        assert!(matches!(error, Unavailable::Usage(text) if text.contains("warp")));
    }

    #[test]
    fn a_small_table_still_serves() {
        let ring = RingConfig {
            slots: 2,
            ..RingConfig::default()
        };
        assert_eq!(connections_max(&ring), 1);
    }
}
