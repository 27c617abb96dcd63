//! Names to addresses, by the system's own resolver configuration.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::future::{self, Either};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType},
};
use tokio::time::{sleep, timeout};

use super::{
    failure::Failure,
    progress::{Phase, Progress},
};
use crate::check::{Family, Reason};

/// Answers are kept for as long as their TTL says, as whoever uses the name does, and no longer than this: a name that was
/// moved in haste, with a TTL of a day, is followed in minutes.
const POSITIVE_TTL: Duration = Duration::from_secs(300);
/// A name just created is found at the next probe.
const NEGATIVE_TTL: Duration = Duration::from_secs(1);
/// How long the other family may still take once one has answered with addresses.
const SECOND_FAMILY: Duration = Duration::from_millis(100);
/// Or this part of the time that is left, where that is more.
const SECOND_FAMILY_SHARE: u32 = 4;
/// Between two questions to name servers that cannot be reached at all.
const HEAR_PAUSE: Duration = Duration::from_millis(100);
/// A name with more addresses is tried on the lowest of them only, which are the same in whatever order they come.
const MAX_ADDRESSES: usize = 64;

/// Which name servers are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NameServers {
    /// What `/etc/resolv.conf` says, search domains and `/etc/hosts` included.
    #[default]
    System,
    /// These, with these search domains, over UDP and TCP.
    Given { servers: Vec<SocketAddr>, search: Vec<String> },
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lookup {
    /// At least one and at most 64, sorted: IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Of which family nobody said anything in time, so that there may be more.
    pub unheard: Option<Family>,
}

pub(super) struct NameResolver {
    /// `Err`: why no name can be resolved here.
    resolver: Result<TokioResolver, String>,
    search: Vec<Name>,
    ndots: usize,
}

impl NameResolver {
    /// Reads the configuration once. What is wrong with it is told when a name is asked for: addresses need none.
    pub fn new(servers: &NameServers) -> Self {
        match configuration(servers) {
            Ok((config, options)) => Self::with(config, options),
            Err(error) => Self { resolver: Err(error), search: Vec::new(), ndots: 1 },
        }
    }

    fn with(config: ResolverConfig, mut options: ResolverOpts) -> Self {
        // Of `search` and `domain` lines the last counts; the crate has put it here.
        let search = config.search().to_vec();
        let ndots = options.ndots;
        options.positive_max_ttl = Some(POSITIVE_TTL);
        options.negative_max_ttl = Some(NEGATIVE_TTL);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Self { resolver: builder.build().map_err(|error| error.to_string()), search, ndots }
    }

    /// The addresses of `name`. Has no end of its own: the deadline of `progress` bounds it, and half-way there it is
    /// found out whether a missing answer is the name servers' fault.
    pub async fn look_up(&self, name: &str, progress: &Progress) -> Result<Lookup, Failure> {
        progress.reach(Phase::Resolve);
        let patience = SECOND_FAMILY.max(progress.remaining() / SECOND_FAMILY_SHARE);
        let mut search = std::pin::pin!(self.search(name, patience));
        if let Ok(found) = timeout(progress.remaining() / 2, &mut search).await {
            return found;
        }
        progress.name_servers_silent(true);
        let watch = async {
            self.hear().await;
            progress.name_servers_silent(false);
            future::pending().await
        };
        match future::select(search, std::pin::pin!(watch)).await {
            Either::Left((found, _)) => found,
            Either::Right((never, _)) => never,
        }
    }

    /// Comes back once any name server has answered a question about the root, which all of them know by heart.
    /// What it answers does not matter.
    async fn hear(&self) {
        let Ok(resolver) = &self.resolver else { return };
        while let Err(NetError::Timeout | NetError::Io(_) | NetError::NoConnections) =
            resolver.lookup(Name::root(), RecordType::NS).await
        {
            sleep(HEAR_PAUSE).await;
        }
    }

    async fn search(&self, name: &str, patience: Duration) -> Result<Lookup, Failure> {
        let resolver = self.resolver.as_ref().map_err(|error| unreachable(name, error))?;
        let parsed = Name::from_utf8(name)
            .map_err(|error| Failure::new(Reason::NameNotFound, format!("no such name '{name}': {error}")))?;
        let mut trouble = None;
        for candidate in self.candidates(parsed) {
            match both_families(resolver, &candidate, patience).await {
                Ok(lookup) if !lookup.addresses.is_empty() => return Ok(lookup),
                Ok(_) => {}
                Err(error) => trouble = Some(error),
            }
        }
        // The answer may have been where the trouble was, so "no such name" is only said when nothing was missed.
        Err(match trouble {
            Some(error) => unreachable(name, &error.to_string()),
            None => Failure::new(Reason::NameNotFound, format!("no such name '{name}'")),
        })
    }

    /// The full names to ask for, in the order of resolv.conf(5): a name with enough dots as it is first, last otherwise.
    fn candidates(&self, name: Name) -> Vec<Name> {
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        if name.is_fqdn() {
            return vec![absolute];
        }
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        let mut all: Vec<_> = self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
        all.retain(|candidate| *candidate != absolute);
        if dots >= self.ndots || name.is_localhost() {
            all.insert(0, absolute);
        } else {
            all.push(absolute);
        }
        all
    }
}

fn unreachable(name: &str, error: &str) -> Failure {
    Failure::new(Reason::ResolverUnreachable, format!("'{name}' could not be looked up: {error}"))
}

fn configuration(servers: &NameServers) -> Result<(ResolverConfig, ResolverOpts), String> {
    match servers {
        NameServers::System => hickory_resolver::system_conf::read_system_conf().or_else(|error| {
            // Without a resolver `/etc/hosts` still names things, as in a container without a network.
            tracing::warn!(%error, "no name servers: only /etc/hosts is consulted");
            Ok((ResolverConfig::from_parts(None, vec![], vec![]), ResolverOpts::default()))
        }),
        NameServers::Given { servers, search } => {
            let search = search
                .iter()
                .map(|domain| Name::from_utf8(domain).map_err(|error| format!("search domain '{domain}': {error}")))
                .collect::<Result<_, _>>()?;
            let servers = servers.iter().map(name_server).collect();
            Ok((ResolverConfig::from_parts(None, search, servers), ResolverOpts::default()))
        }
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].into_iter().map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.collect())
}

/// Both families of one full name at once; empty when it is certain that there are none. The second to come is waited
/// for no longer than `patience` where the first has addresses.
async fn both_families(resolver: &TokioResolver, name: &Name, patience: Duration) -> Result<Lookup, NetError> {
    let v4 = std::pin::pin!(family(resolver, name, RecordType::A));
    let v6 = std::pin::pin!(family(resolver, name, RecordType::AAAA));
    let (v4, v6) = match future::select(v4, v6).await {
        Either::Left((v4, v6)) => {
            let v6 = patiently(&v4, v6, patience).await;
            (Some(v4), v6)
        }
        Either::Right((v6, v4)) => {
            let v4 = patiently(&v6, v4, patience).await;
            (v4, Some(v6))
        }
    };
    let mut lookup = Lookup { addresses: Vec::new(), unheard: None };
    let mut trouble = None;
    for (family, result) in [(Family::V4, v4), (Family::V6, v6)] {
        match result {
            Some(Ok(found)) => lookup.addresses.extend(found),
            Some(Err(error)) => {
                lookup.unheard = Some(family);
                trouble = Some(error);
            }
            None => lookup.unheard = Some(family),
        }
    }
    lookup.addresses.sort_unstable();
    lookup.addresses.dedup();
    lookup.addresses.truncate(MAX_ADDRESSES);
    match trouble {
        Some(error) if lookup.addresses.is_empty() => Err(error),
        _ => Ok(lookup),
    }
}

type Addresses = Result<Vec<IpAddr>, NetError>;

/// Waits for the other family, but only a little where there are addresses already. `None`: not long enough.
async fn patiently(have: &Addresses, other: impl Future<Output = Addresses>, patience: Duration) -> Option<Addresses> {
    match have {
        Ok(addresses) if !addresses.is_empty() => timeout(patience, other).await.ok(),
        _ => Some(other.await),
    }
}

async fn family(resolver: &TokioResolver, name: &Name, kind: RecordType) -> Addresses {
    loop {
        return match resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => Ok(lookup.answers().iter().filter_map(|record| address(&record.data)).collect()),
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Ok(Vec::new()),
            // How long is too long is the probe's to say.
            Err(NetError::Timeout) => continue,
            Err(error) => Err(error),
        };
    }
}

const fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(search: &[&str], ndots: usize) -> NameResolver {
        let search = search.iter().map(|domain| Name::from_utf8(domain).expect("a domain")).collect();
        let mut options = ResolverOpts::default();
        options.ndots = ndots;
        NameResolver::with(ResolverConfig::from_parts(None, search, vec![]), options)
    }

    fn candidates(resolver: &NameResolver, name: &str) -> Vec<String> {
        let name = Name::from_utf8(name).expect("a name");
        resolver.candidates(name).iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn search_domains_are_tried_in_the_order_of_resolv_conf() {
        let resolver = resolver(&["shop.svc.cluster.local.", "svc.cluster.local."], 5);
        assert_eq!(candidates(&resolver, "db"), ["db.shop.svc.cluster.local.", "db.svc.cluster.local.", "db."]);
        assert_eq!(candidates(&resolver, "db.example.com."), ["db.example.com."]);
        assert_eq!(candidates(&resolver, "a.b.c.d.e.f")[0], "a.b.c.d.e.f.");
        assert_eq!(candidates(&resolver, "localhost")[0], "localhost.");
    }
}
