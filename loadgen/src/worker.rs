//! A worker thread: pinned, it waits for a command, carries it out, and waits again. Waiting costs no CPU, so a fleet
//! may rest between stretches for as long as it likes.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
};

use echometer_host::{pinning, signals::Stop};
use echometer_ring::SetupError;

use crate::{
    connect_times::ConnectTimes,
    dial::{Connected, Dialing, Route, Unconnected, connect_all},
    drive::{Job, Outcome, Session},
    engine::{
        epoll::Epoll,
        uring::{self, Uring},
    },
    flow::NO_END,
    lives::{LifePlan, Lives},
    payload::Payload,
    plan::{Engine, Plan},
    segment::{Segment, Shape},
};

/// What a worker is asked to do. Sessions are named by the fleet.
pub(crate) enum Command {
    Open {
        session: u32,
        route: Route,
        under_way: usize,
        opening: Opening,
        /// Ends the connecting early.
        stop: Option<Stop>,
    },
    Drive {
        session: u32,
        job: Box<Job>,
    },
    Close {
        session: u32,
    },
}

/// Which connections are made when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// All before the load.
    Before,
    /// All before the load, and again when they fail.
    BeforeAndAgain,
    /// While load is driven, again and again.
    Churn,
    /// While load is driven, each once.
    Once,
}

/// What a worker answers.
pub(crate) enum Answer {
    /// It is pinned and waits for commands; or it can't be.
    Ready(Result<(), pinning::PinError>),
    /// The session is open, and this is how long each connect took; or it isn't.
    Opened(Result<Box<ConnectTimes>, OpenFailure>),
    /// A segment of the stretch that is being driven is full.
    Segment(Box<Segment>),
    /// The stretch is over.
    Driven(Result<Box<Outcome>, DriveFailure>),
}

/// Why a worker has no session.
pub(crate) enum OpenFailure {
    Connect(io::Error),
    /// On request.
    Stopped,
    Ring(SetupError),
    Epoll(io::Error),
}

impl From<Unconnected> for OpenFailure {
    fn from(unconnected: Unconnected) -> OpenFailure {
        match unconnected {
            Unconnected::Failed(error) => OpenFailure::Connect(error),
            Unconnected::Stopped => OpenFailure::Stopped,
        }
    }
}

/// Why a stretch came to nothing.
pub(crate) enum DriveFailure {
    NoSuchSession,
    Engine(io::Error),
}

/// What a worker knows from its birth on.
pub(crate) struct Birth {
    pub(crate) index: usize,
    pub(crate) plan: Arc<Plan>,
    /// Never [`Engine::Auto`].
    pub(crate) engine: Engine,
    pub(crate) payload: Payload,
    /// Connections are made while load is driven.
    pub(crate) dials: bool,
    pub(crate) commands: Receiver<Command>,
    pub(crate) answers: Sender<(usize, Answer)>,
    /// Segments that the fleet has added up, empty again.
    pub(crate) emptied: Receiver<Box<Segment>>,
}

/// The life of a worker: until the fleet hangs up.
pub(crate) fn live(birth: &Birth) {
    let answer = |answer| birth.answers.send((birth.index, answer)).is_ok();
    let pinned = match birth.plan.workers[birth.index] {
        Some(cpu) => pinning::pin_current_thread(cpu),
        None => Ok(()),
    };
    let stay = pinned.is_ok();
    if !answer(Answer::Ready(pinned)) || !stay {
        return;
    }
    let mut sessions: Vec<Option<AnySession>> = Vec::new();
    // Two to begin with, one in use and one to change to; more come only if the fleet is slow to give them back.
    let shape = Shape::of(&birth.plan, birth.dials);
    let empty = || Box::new(Segment::new(shape));
    let mut spares: Vec<Box<Segment>> = vec![empty(), empty()];
    while let Ok(command) = birth.commands.recv() {
        match command {
            Command::Open {
                session,
                route,
                under_way,
                opening,
                stop,
            } => {
                let opened = open(birth, route, under_way, opening, stop.as_ref()).map(
                    |(opened, connects)| {
                        let place = session as usize;
                        sessions.resize_with(sessions.len().max(place + 1), || None);
                        sessions[place] = Some(opened);
                        connects
                    },
                );
                if !answer(Answer::Opened(opened)) {
                    return;
                }
            }
            Command::Drive { session, job } => {
                let mut fresh = || {
                    spares.extend(birth.emptied.try_iter());
                    spares.pop().unwrap_or_else(empty)
                };
                let driven = match sessions.get_mut(session as usize) {
                    Some(Some(session)) => {
                        let first = fresh();
                        let mut hand_over = |segment: &mut Box<Segment>| {
                            let full = std::mem::replace(segment, fresh());
                            answer(Answer::Segment(full));
                        };
                        session
                            .drive(&job, first, &mut hand_over)
                            .map(Box::new)
                            .map_err(DriveFailure::Engine)
                    }
                    _ => Err(DriveFailure::NoSuchSession),
                };
                if !answer(Answer::Driven(driven)) {
                    return;
                }
            }
            Command::Close { session } => {
                if let Some(place) = sessions.get_mut(session as usize) {
                    *place = None;
                }
            }
        }
    }
}

fn open(
    birth: &Birth,
    route: Route,
    under_way: usize,
    opening: Opening,
    stop: Option<&Stop>,
) -> Result<(AnySession, Box<ConnectTimes>), OpenFailure> {
    let Birth {
        index,
        plan,
        payload,
        ..
    } = birth;
    let connections = plan.connections_of(*index);
    let first_connection: u32 = (0..*index).map(|before| plan.connections_of(before)).sum();
    let first_connection = first_connection as usize;
    let before = match opening {
        Opening::Before | Opening::BeforeAndAgain => connections as usize,
        Opening::Churn | Opening::Once => 0,
    };
    let Connected { sockets, connects } = connect_all(before, under_way, &route, *index, stop)?;
    let lives = lives_of(plan, connections, opening, &route);
    let region = Arc::clone(payload.region());
    let life_bytes = lives.as_ref().map(|lives| {
        lives
            .plan()
            .messages
            .saturating_mul(u64::from(plan.message_size))
    });
    let dialing = Dialing::new(route, *index).map_err(OpenFailure::Connect)?;
    let payload = payload.clone();
    let stamped = plan.is_stamped();
    let session = if birth.engine == Engine::Epoll {
        let engine =
            Epoll::new(sockets, connections, region, stamped).map_err(OpenFailure::Epoll)?;
        AnySession::Epoll(Box::new(Session::new(
            plan,
            engine,
            payload,
            connections,
            first_connection,
            lives,
            dialing,
        )))
    } else {
        let flight_bytes = u64::from(plan.message_size) * u64::from(plan.pipeline);
        let config = uring::config(connections, flight_bytes, life_bytes, stamped, region);
        let engine =
            Uring::new(sockets, connections, &config, stamped).map_err(OpenFailure::Ring)?;
        AnySession::Uring(Box::new(Session::new(
            plan,
            engine,
            payload,
            connections,
            first_connection,
            lives,
            dialing,
        )))
    };
    Ok((session, connects))
}

fn lives_of(plan: &Plan, connections: u32, opening: Opening, route: &Route) -> Option<Lives> {
    let life = LifePlan {
        messages: match plan.requests_per_connection {
            0 => NO_END,
            messages => u64::from(messages),
        },
        close: plan.close,
        again: opening != Opening::Once,
        dial_rate_per_s: route.rate_per_s,
        time_limit_ns: u64::try_from(route.options.time_limit.as_nanos()).unwrap_or(u64::MAX),
    };
    let mut lives = match opening {
        Opening::Before => return None,
        Opening::BeforeAndAgain | Opening::Churn | Opening::Once => Lives::new(connections, life),
    };
    if opening == Opening::BeforeAndAgain {
        lives.all_open();
    }
    Some(lives)
}

/// The one place where the engine is chosen at run time: once a stretch.
enum AnySession {
    Uring(Box<Session<Uring>>),
    Epoll(Box<Session<Epoll>>),
}

impl AnySession {
    fn drive(
        &mut self,
        job: &Job,
        empty: Box<Segment>,
        hand_over: &mut dyn FnMut(&mut Box<Segment>),
    ) -> io::Result<Outcome> {
        match self {
            AnySession::Uring(session) => session.drive(job, empty, hand_over),
            AnySession::Epoll(session) => session.drive(job, empty, hand_over),
        }
    }
}
