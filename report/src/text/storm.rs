//! A storm as text of at most 80 columns, and its answer: the smallest backlog that lost none, and what to set.

use std::{collections::BTreeMap, fmt::Write as _};

use echometer_host::{
    fitness,
    units::{counted, show_count, show_ns, show_rate, show_size},
};

use crate::{
    file::{
        entries::ENGINES,
        storm::{LevelEntry, StormFile, late_echoes},
    },
    text::columns::{align_right, cpus, paragraph, plain_table, render, short},
};

/// The whole report; ends with the sentence.
#[must_use]
pub fn text(file: &StormFile) -> String {
    let mut text = String::new();
    paragraph(&mut text, "", &header(file));
    text.push('\n');
    for remark in remarks(file) {
        paragraph(&mut text, "- ", &remark);
    }
    let _ = writeln!(text, "\n{}\n\n{}\n", losses_table(file), times_table(file));
    paragraph(&mut text, "", &file.sentence);
    text
}

/// The answer: by arm, the smallest backlog that lost none, and what to set.
#[must_use]
pub fn sentence(file: &StormFile) -> String {
    let mut arms: Vec<&str> = Vec::new();
    for level in &file.levels {
        if !arms.contains(&level.arm.as_str()) {
            arms.push(&level.arm);
        }
    }
    let answers: Vec<String> = arms.into_iter().map(|arm| answer(file, arm)).collect();
    let cut = if file.cut_short { "Cut short. " } else { "" };
    format!(
        "{cut}With {}, on {}: {}.",
        storm_words(file),
        file.machine.summary(),
        answers.join("; ")
    )
}

fn answer(file: &StormFile, arm: &str) -> String {
    let mut levels: Vec<&LevelEntry> = file
        .levels
        .iter()
        .filter(|level| level.arm == arm && level.lost_none.is_some())
        .collect();
    levels.sort_by_key(|level| level.backlog);
    let Some(largest) = levels.last() else {
        return format!("nothing can be said of {arm}: no storm gave figures");
    };
    // A level that lost none counts only where the larger ones lost none either: else it was luck.
    let whole = levels
        .iter()
        .rev()
        .take_while(|level| level.lost_none == Some(true))
        .last();
    let worst = levels.iter().find(|level| level.lost_none == Some(false));
    match (whole, worst) {
        (Some(enough), lost) => {
            let Some(backlog) = enough.backlog else {
                return format!("{arm} lost none");
            };
            let lost = match lost {
                Some(level) => format!("{} ({})", "while less lost some", losses_words(level)),
                None => "the smallest that was tried".to_owned(),
            };
            let samples = enough.queue_max.map_or_else(String::new, |seen| {
                format!(
                    "; its queue was seen to hold {}",
                    show_count(u64::from(seen))
                )
            });
            format!(
                "{arm} lost none from a backlog of {} on, {lost}{samples}; set {}",
                show_count(u64::from(backlog)),
                settings(file, enough, backlog),
            )
        }
        (None, _) => format!(
            "{arm} lost some at every backlog tried, {} ({}): {}",
            largest
                .backlog
                .map_or("its own too".to_owned(), |backlog| format!(
                    "at {} too",
                    show_count(u64::from(backlog))
                )),
            losses_words(largest),
            cure(file, largest),
        ),
    }
}

/// What to set where a backlog was found to be enough.
fn settings(file: &StormFile, level: &LevelEntry, backlog: u32) -> String {
    let mut words = backlog_of(level, backlog);
    match file.sysctls.somaxconn {
        Some(most) if most < backlog => {
            let _ = write!(
                words,
                " and net.core.somaxconn {backlog} (it is {most}, so that only {most} counted)"
            );
        }
        Some(most) => {
            let _ = write!(words, " (net.core.somaxconn, {most}, allows it)");
        }
        None => {
            let _ = write!(words, " (and see that net.core.somaxconn allows it)");
        }
    }
    for advice in syn_queue_advice(file, level) {
        let _ = write!(words, "; {advice}");
    }
    words
}

/// How this server is asked for a backlog: ours has a flag for it, of another nobody knows.
fn backlog_of(level: &LevelEntry, backlog: u32) -> String {
    let engine = level.spec.split(':').next().unwrap_or_default();
    match ENGINES.contains(&engine) {
        true => format!("--backlog {backlog}"),
        false => format!("a backlog of {backlog}"),
    }
}

/// What to try where no backlog was enough.
fn cure(file: &StormFile, level: &LevelEntry) -> String {
    let connects = file.connects;
    let mut cures = Vec::new();
    let (effective, somaxconn) = (level.effective_backlog, file.sysctls.somaxconn);
    match (level.backlog.zip(effective), somaxconn) {
        (Some((asked, effective)), Some(most)) if effective < asked => cures.push(format!(
            "net.core.somaxconn ({most}) cut it to {effective}: raise it to {}",
            asked.max(connects)
        )),
        _ if effective.is_some_and(|effective| effective < connects) => {
            cures.push(format!("try {}", backlog_of(level, connects)));
            if somaxconn.is_some_and(|most| most < connects) {
                cures.push(format!("with net.core.somaxconn {connects}"));
            }
        }
        _ => {}
    }
    cures.extend(syn_queue_advice(file, level));
    if cures.is_empty() {
        cures.push(
            "the accept queue is not the reason: look at the errors and at the server's log"
                .to_owned(),
        );
    }
    cures.join(", ")
}

/// What helps against a full queue of half-open connections. The kernel holds as many of them as the effective backlog,
/// and answers one more by a cookie, or not at all. `tcp_max_syn_backlog` counts only where cookies are off: SYNs are
/// dropped, under no counter of their own, as soon as less than a quarter of it is free.
fn syn_queue_advice(file: &StormFile, level: &LevelEntry) -> Vec<String> {
    let connects = file.connects;
    let counters = level.counters.unwrap_or_default();
    let dropped_when_full = counters.syn_queue_full_drops.unwrap_or(0);
    // With 2 every SYN is answered by a cookie, and that says nothing of the queue.
    let cookies = match file.sysctls.tcp_syncookies {
        Some(2) => 0,
        _ => counters.syn_cookies.unwrap_or(0),
    };
    let mut advice = Vec::new();
    let holds_all = level
        .effective_backlog
        .is_some_and(|effective| connects <= effective);
    if 0 < dropped_when_full.saturating_add(cookies) && !holds_all {
        advice.push(format!(
            "SYNs met a full queue of half-open connections, which is as long as the backlog: {} holds all",
            show_count(u64::from(connects))
        ));
    }
    let unexplained = level.listen_drops.map(|drops| {
        drops
            .saturating_sub(level.listen_overflows.unwrap_or(0))
            .saturating_sub(dropped_when_full)
    });
    let needed = connects.saturating_add(connects / 3).saturating_add(2);
    if file.sysctls.tcp_syncookies == Some(0)
        && unexplained.is_some_and(|drops| drops != 0)
        && let Some(now) = file.sysctls.tcp_max_syn_backlog
        && now < needed
    {
        advice.push(format!(
            "net.ipv4.tcp_max_syn_backlog {needed} (it is {now}; with tcp_syncookies 0 the last quarter of it stays free)"
        ));
    }
    advice
}

fn losses_words(level: &LevelEntry) -> String {
    let backlog = level.backlog.map_or_else(String::new, |backlog| {
        format!("{}: ", show_count(u64::from(backlog)))
    });
    let mut words = Vec::new();
    if level.failed != 0 {
        words.push(format!(
            "{} failed or had no echo",
            counted(level.failed, "connect")
        ));
    }
    let resent: u64 = level.syn_retransmits.values().sum();
    if resent != 0 {
        words.push(format!(
            "{} of {} needed another SYN, the slowest took {}",
            show_count(resent),
            counted(level.connects, "connect"),
            level.connect_ns.max.map_or("?".to_owned(), show_ns),
        ));
    }
    if late_echoes(level) {
        words.push(format!(
            "a first echo took {}",
            level.first_echo_ns.max.map_or("?".to_owned(), show_ns)
        ));
    }
    if words.is_empty() {
        words.push(format!(
            "the kernel counted {} overflows and {} drops",
            show_counter(level.listen_overflows),
            show_counter(level.listen_drops),
        ));
    }
    format!("{backlog}{}", words.join(", "))
}

fn header(file: &StormFile) -> String {
    let cpus = cpus(file.server_cpus.as_ref(), &file.client_cpus);
    format!(
        "{}; {cpus}; {} of {}, a fresh server for each storm",
        storm_words(file),
        file.blocks_done,
        counted(file.blocks as u64, "block")
    )
}

fn storm_words(file: &StormFile) -> String {
    let connects = counted(u64::from(file.connects), "connect");
    let size = show_size(u64::from(file.message_size));
    match file.connect_rate_per_s {
        None => format!("{connects} at once, each with one echo of {size}"),
        Some(rate) => format!(
            "{connects} at {}/s, each with one echo of {size}",
            show_rate(rate)
        ),
    }
}

/// What to know before the figures.
fn remarks(file: &StormFile) -> Vec<String> {
    let sysctls = &file.sysctls;
    let objections = fitness::objections(&file.doctor).into_iter();
    let mut remarks: Vec<String> = objections
        .map(|objection| format!("not valid: {objection}"))
        .collect();
    remarks.extend(file.faults.iter().cloned());
    let known = |value: Option<u32>| value.map_or("unknown".to_owned(), |value| value.to_string());
    remarks.push(format!(
        "a lost SYN is sent again after {} (net.ipv4.tcp_syn_linear_timeouts {}, tcp_syn_retries {})",
        sysctls.show_steps(),
        known(sysctls.tcp_syn_linear_timeouts),
        known(sysctls.tcp_syn_retries),
    ));
    remarks.push(sysctls.overflow_policy().to_owned());
    remarks.push(format!(
        "limits: net.core.somaxconn {}, tcp_max_syn_backlog {}, tcp_syncookies {}",
        known(sysctls.somaxconn),
        known(sysctls.tcp_max_syn_backlog),
        known(sysctls.tcp_syncookies),
    ));
    for level in &file.levels {
        if let Some((asked, effective)) = level.backlog.zip(level.effective_backlog)
            && effective < asked
        {
            remarks.push(format!(
                "of the backlog {} of {} only {} counts: net.core.somaxconn",
                show_count(u64::from(asked)),
                level.arm,
                show_count(u64::from(effective)),
            ));
        }
        if !level.errors.is_empty() {
            let kinds: Vec<String> = level
                .errors
                .iter()
                .map(|(kind, count)| {
                    let kind = match kind.as_str() {
                        "no-echo" => "without an echo".to_owned(),
                        kind => kind.replace('_', " "),
                    };
                    format!("{} {kind}", show_count(*count))
                })
                .collect();
            remarks.push(format!(
                "backlog {}: {} failed or had no echo ({})",
                level_name(file, level),
                counted(level.failed, "connect"),
                kinds.join(", ")
            ));
        }
    }
    remarks
}

/// What was lost.
fn losses_table(file: &StormFile) -> String {
    let times: Vec<u32> = {
        let mut all = BTreeMap::new();
        for level in &file.levels {
            all.extend(
                level
                    .syn_retransmits
                    .iter()
                    .map(|(&times, &count)| (times, count)),
            );
        }
        all.into_keys().collect()
    };
    let mut table = plain_table();
    table.set_header([
        "backlog",
        "effective",
        "queue max",
        "failed",
        "SYN sent again",
        "overflows",
        "drops",
    ]);
    for level in &file.levels {
        let resent = if level.storms == 0 {
            "-".to_owned()
        } else if level.syn_retransmits.is_empty() {
            "0".to_owned()
        } else {
            // "382 once, 12 twice": so many connections needed so many SYNs more.
            times
                .iter()
                .filter_map(|times| {
                    let count = level.syn_retransmits.get(times)?;
                    let times = match times {
                        1 => "once".to_owned(),
                        2 => "twice".to_owned(),
                        more => format!("{more} times"),
                    };
                    Some(format!("{} {times}", show_count(*count)))
                })
                .collect::<Vec<_>>()
                .join(", ")
        };
        table.add_row([
            level_name(file, level),
            level
                .effective_backlog
                .map_or("-".to_owned(), |backlog| show_count(u64::from(backlog))),
            level
                .queue_max
                .map_or("-".to_owned(), |most| show_count(u64::from(most))),
            show_count(level.failed),
            resent,
            show_counter(level.listen_overflows),
            show_counter(level.listen_drops),
        ]);
    }
    align_right(&mut table, 1..=6);
    render(&mut table)
}

/// How long it took.
fn times_table(file: &StormFile) -> String {
    let mut table = plain_table();
    table.set_header([
        "backlog",
        "connect p50",
        "p99",
        "max",
        "first echo p50",
        "p99",
        "max",
    ]);
    let show = |value: Option<u64>| value.map_or("-".to_owned(), show_ns);
    for level in &file.levels {
        let (connect, echo) = (&level.connect_ns, &level.first_echo_ns);
        table.add_row([
            level_name(file, level),
            show(connect.p50),
            show(connect.p99),
            show(connect.max),
            show(echo.p50),
            show(echo.p99),
            show(echo.max),
        ]);
    }
    align_right(&mut table, 1..=6);
    render(&mut table)
}

/// The backlog; with the arm where there are several.
fn level_name(file: &StormFile, level: &LevelEntry) -> String {
    let several = file
        .levels
        .first()
        .is_some_and(|first| file.levels.iter().any(|level| level.arm != first.arm));
    let backlog = level
        .backlog
        .map_or("as it is".to_owned(), |backlog| backlog.to_string());
    match several {
        true => format!("{} {backlog}", short(&level.arm)),
        false => backlog,
    }
}

fn show_counter(counter: Option<u64>) -> String {
    counter.map_or("-".to_owned(), show_count)
}
