//! What is sent comes back: every byte, in order, to whom it belongs.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::thread;

use echometer_server::config::Accept;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::support::{Pattern, close, connect, echo, finish, read_to_eof, serve};

pub(crate) fn any_size_comes_back_byte_for_byte(engine: &str) {
    let server = serve(engine, |_| {});
    let sizes: [usize; 11] = [
        1,
        2,
        63,
        4095,
        4096,
        4097,
        65_536,
        65_537,
        1 << 20,
        (1 << 20) + 7,
        32 << 20,
    ];
    for (seed, &size) in sizes.iter().enumerate() {
        let stream = connect(&server);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = StdRng::seed_from_u64(seed as u64);
                let mut pattern = Pattern::new(seed as u64);
                let mut left = size;
                while 0 < left {
                    // Chunks of all magnitudes: mostly small for the small streams, up to 256 KiB for the large ones.
                    let chunk_max = 1usize << random.random_range(0..=18u32).min(1 + left.ilog2());
                    let chunk = random.random_range(1..=chunk_max.min(left));
                    (&stream).write_all(&pattern.next(chunk)).expect("sent");
                    left -= chunk;
                }
                stream.shutdown(Shutdown::Write).expect("connected");
            });
            assert_eq!(
                read_to_eof(&stream, &mut Pattern::new(seed as u64)),
                size as u64
            );
        });
    }
    let stats = finish(server);
    let total: usize = sizes.iter().sum();
    assert_eq!(
        (stats.total.bytes_in, stats.total.bytes_out),
        (total as u64, total as u64)
    );
    assert_eq!(stats.total.closed["peer_closed"], sizes.len() as u64);
}

pub(crate) fn two_hundred_interleaved_connections_keep_their_bytes(engine: &str) {
    let server = serve(engine, |_| {});
    let mut random = StdRng::seed_from_u64(200);
    let mut peers: Vec<_> = (0..200)
        .map(|seed| (connect(&server), Pattern::new(seed), 0))
        .collect();
    for _ in 0..20 {
        peers.shuffle(&mut random);
        for (stream, pattern, sent) in &mut peers {
            *sent = random.random_range(1..=3000);
            stream.write_all(&pattern.peek(*sent)).expect("sent");
        }
        peers.shuffle(&mut random);
        for (stream, pattern, sent) in &mut peers {
            let mut back = vec![0; *sent];
            stream.read_exact(&mut back).expect("echoed");
            assert!(
                back == pattern.next(*sent),
                "bytes of another connection, or in another order"
            );
        }
    }
    for (mut stream, _, _) in peers {
        close(&mut stream);
    }
    assert_eq!(finish(server).total.accepted, 200);
}

pub(crate) fn one_byte_at_a_time(engine: &str) {
    let server = serve(engine, |_| {});
    let mut stream = connect(&server);
    let mut pattern = Pattern::new(1);
    // Waiting for each byte, and then without waiting.
    for _ in 0..500 {
        echo(&mut stream, &pattern.next(1));
    }
    let mut expected = pattern.clone();
    for _ in 0..5000 {
        stream.write_all(&pattern.next(1)).expect("sent");
    }
    stream.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(read_to_eof(&stream, &mut expected), 5000);
    assert_eq!(finish(server).total.bytes_in, 5500);
}

pub(crate) fn a_buffer_of_a_few_bytes_is_enough(engine: &str) {
    let server = serve(engine, |config| config.buffer_size = Some(64));
    let stream = connect(&server);
    thread::scope(|scope| {
        scope.spawn(|| {
            (&stream)
                .write_all(&Pattern::new(2).next(300_001))
                .expect("sent");
            stream.shutdown(Shutdown::Write).expect("connected");
        });
        assert_eq!(read_to_eof(&stream, &mut Pattern::new(2)), 300_001);
    });
    finish(server);
}

pub(crate) fn v6_is_served(engine: &str) {
    let server = serve(engine, |config| {
        config.listen = "[::1]:0".parse().expect("an address");
    });
    assert!(
        server
            .ready_line()
            .to_string()
            .starts_with("listening on [::1]:")
    );
    let mut stream = connect(&server);
    echo(&mut stream, b"over v6");
    close(&mut stream);
    finish(server);
}

pub(crate) fn workers_share_the_connections(engine: &str) {
    let server = serve(engine, |config| config.workers = vec![None; 3]);
    let mut streams: Vec<_> = (0..60).map(|_| connect(&server)).collect();
    for stream in &mut streams {
        echo(stream, b"who serves me?");
    }
    let stats = server.stats();
    assert_eq!(stats.workers.len(), 3);
    assert_eq!(stats.total.open, 60);
    // By a hash of the ports; that one of three gets none of 60 by chance is 1 in 10^10.
    assert!(
        stats.workers.iter().all(|worker| 0 < worker.tally.open),
        "{:?}",
        stats.workers
    );
    for mut stream in streams {
        close(&mut stream);
    }
    finish(server);
}

pub(crate) fn a_shared_queue_is_shared_fairly(engine: &str) {
    let server = serve(engine, |config| {
        config.workers = vec![None; 3];
        config.accept = Accept::Shared;
    });
    // One after the other, each when all workers are idle: whoever is quickest must not get them all.
    let mut streams: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = connect(&server);
            echo(&mut stream, b"whose turn is it?");
            stream
        })
        .collect();
    let stats = server.stats();
    assert_eq!(stats.total.open, 60);
    assert!(
        stats.workers.iter().all(|worker| 5 <= worker.tally.open),
        "{:?}",
        stats.workers
    );
    for stream in &mut streams {
        close(stream);
    }
    finish(server);
}
