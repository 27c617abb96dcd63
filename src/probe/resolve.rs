//! Names to addresses, by the system's own resolver configuration.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::future::{self, Either};
use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query,
        rr::{Name, Record, RecordType},
    },
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
/// But never more than this part of it: the target is to be asked too.
const SECOND_FAMILY_MOST: u32 = 3;
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

impl Lookup {
    fn new(mut addresses: Vec<IpAddr>, unheard: Option<Family>) -> Self {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MAX_ADDRESSES);
        Self { addresses, unheard }
    }
}

pub(super) struct NameResolver {
    hosts: Hosts,
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
            Err(error) => Self { hosts: hosts(), resolver: Err(error), search: Vec::new(), ndots: 1 },
        }
    }

    fn with(config: ResolverConfig, mut options: ResolverOpts) -> Self {
        // Of `search` and `domain` lines the last counts; the crate has put it here.
        let search = config.search().to_vec();
        let ndots = options.ndots;
        options.positive_max_ttl = Some(POSITIVE_TTL);
        options.negative_max_ttl = Some(NEGATIVE_TTL);
        // All at once: a look-up that is given up with its probe tells the crate nothing of those that did not answer, which
        // would be asked first for ever.
        options.num_concurrent_reqs = config.name_servers().len().max(options.num_concurrent_reqs);
        // Asked here, before any name server.
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Self { hosts: hosts(), resolver: builder.build().map_err(|error| error.to_string()), search, ndots }
    }

    /// The addresses of `name`. Has no end of its own: the deadline of `progress` bounds it, and half-way there it is
    /// found out whether a missing answer is the name servers' fault.
    pub async fn look_up(&self, name: &str, progress: &Progress) -> Result<Lookup, Failure> {
        progress.reach(Phase::Resolve);
        let mut search = std::pin::pin!(self.search(name, patience(progress.remaining())));
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
        let parsed = Name::from_utf8(name)
            .map_err(|error| Failure::new(Reason::NameNotFound, format!("no such name '{name}': {error}")))?;
        if let Some(lookup) = self.in_hosts(&parsed) {
            return Ok(lookup);
        }
        let resolver = self.resolver.as_ref().map_err(|error| unreachable(name, error))?;
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

    /// What the hosts file says of `name`, as it is declared. Where it says anything that is all there is, of the other family
    /// too, and no name server is asked: so everybody else on the machine has it (`files dns` of nsswitch.conf(5)).
    fn in_hosts(&self, name: &Name) -> Option<Lookup> {
        let of = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of);
        let addresses: Vec<_> = found.flat_map(|lookup| addresses(lookup.answers())).collect();
        (!addresses.is_empty()).then(|| Lookup::new(addresses, None))
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

fn hosts() -> Hosts {
    Hosts::from_system().unwrap_or_else(|error| {
        tracing::info!(%error, "no hosts file");
        Hosts::default()
    })
}

/// How long the second family is waited for, of so much time that is left.
fn patience(left: Duration) -> Duration {
    SECOND_FAMILY.max(left / SECOND_FAMILY_SHARE).min(left / SECOND_FAMILY_MOST)
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
    let (mut addresses, mut unheard, mut trouble) = (Vec::new(), None, None);
    for (family, result) in [(Family::V4, v4), (Family::V6, v6)] {
        match result {
            Some(Ok(found)) => addresses.extend(found),
            Some(Err(error)) => {
                unheard = Some(family);
                trouble = Some(error);
            }
            None => unheard = Some(family),
        }
    }
    match trouble {
        Some(error) if addresses.is_empty() => Err(error),
        _ => Ok(Lookup::new(addresses, unheard)),
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
            Ok(lookup) => Ok(addresses(lookup.answers())),
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Ok(Vec::new()),
            // How long is too long is the probe's to say.
            Err(NetError::Timeout) => continue,
            Err(error) => Err(error),
        };
    }
}

fn addresses(records: &[Record]) -> Vec<IpAddr> {
    records.iter().filter_map(|record| record.data.ip_addr()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_resolver::{lookup::Lookup as Answer, proto::rr::RData};

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

    #[tokio::test]
    async fn what_the_hosts_file_has_is_asked_of_nobody() {
        let mut resolver = resolver(&["example."], 5);
        let name = Name::from_ascii("db.example.").expect("a name");
        let record = Record::from_rdata(name.clone(), 60, RData::A(Ipv4Addr::new(192, 0, 2, 7).into()));
        let answer = Answer::new_with_max_ttl(Query::query(name.clone(), RecordType::A), [record]);
        resolver.hosts.insert(name, RecordType::A, answer);
        let look_up = async |name| resolver.search(name, Duration::ZERO).await;
        let found = Lookup { addresses: vec![[192, 0, 2, 7].into()], unheard: None };
        assert_eq!(look_up("DB.example").await.ok(), Some(found), "the other family is not asked for either");
        let unknown = look_up("db").await.expect_err("it has the name in full, and there is no name server");
        assert_eq!(unknown.reason, Reason::ResolverUnreachable);
    }

    #[test]
    fn the_second_family_leaves_time_for_the_target() {
        for millis in [1, 50, 100, 200, 400, 1_000, 60_000] {
            let left = Duration::from_millis(millis);
            assert!(patience(left) <= left / 3, "{left:?}");
        }
        assert_eq!(patience(Duration::from_millis(400)), Duration::from_millis(100));
        assert_eq!(patience(Duration::from_secs(4)), Duration::from_secs(1));
    }
}
