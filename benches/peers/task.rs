//! The work that everybody is given.

use std::{net::Ipv4Addr, time::Duration};

use crate::common::manifests::{Plan, Probe, address};

/// What is asked of every endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    Tcp,
    TcpFull,
    Http,
    HttpKept,
    /// To servers that let sessions go on.
    Https,
}

impl Work {
    pub const ALL: [Self; 5] = [Self::Tcp, Self::TcpFull, Self::Http, Self::HttpKept, Self::Https];

    pub const fn name(self) -> &'static str {
        self.probe().name()
    }

    /// That which `BENCH_ONLY` calls so.
    pub fn of_part(part: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|work| work.part() == part)
    }

    /// How `BENCH_ONLY` calls it.
    pub const fn part(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::TcpFull => "full",
            Self::Http => "fresh",
            Self::HttpKept => "kept",
            Self::Https => "https",
        }
    }

    /// As many endpoints as every peer can ask once a second on one core without falling behind.
    pub const fn endpoints(self) -> usize {
        match self {
            Self::Https => 500,
            _ => 5_000,
        }
    }

    const fn probe(self) -> Probe {
        match self {
            Self::Tcp => Probe::Tcp,
            Self::TcpFull => Probe::TcpFull,
            Self::Http => Probe::Http,
            Self::HttpKept => Probe::HttpKept,
            Self::Https => Probe::Https,
        }
    }
}

/// How often, in every notation that is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every(pub Duration);

impl Every {
    pub const SECOND: Self = Self(Duration::from_secs(1));

    /// In whole milliseconds, as everybody here reads it.
    pub fn text(self) -> String {
        format!("{}ms", self.0.as_millis())
    }

    /// In seconds, as a duration is written in Envoy's JSON.
    pub fn seconds(self) -> String {
        format!("{}s", self.0.as_secs_f64())
    }
}

/// All endpoints with the same work, each on an address of its own.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub work: Work,
    pub endpoints: usize,
    pub every: Every,
    pub port: u16,
}

/// The address of the first endpoint; the others follow.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

impl Task {
    pub fn address(number: usize) -> Ipv4Addr {
        address(FIRST, number)
    }

    /// An attempt may take all of the interval but a tenth.
    pub fn timeout(&self) -> Every {
        Every(self.every.0.mul_f64(0.9).min(Duration::from_millis(900)))
    }

    pub fn plan(&self) -> Plan {
        let (interval, timeout) = (self.every.text(), self.timeout().text());
        Plan { interval, timeout, first: FIRST, ..Plan::loopback(self.endpoints, self.work.probe(), self.port) }
    }
}
