//! A runner in another pod, asked over mutual TLS.

use std::{
    fmt, io,
    net::IpAddr,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, client::Resumption, crypto::aws_lc_rs, pki_types::ServerName, version::TLS13};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{
    in_time,
    pem::{Kept, PemError, PemFiles},
    talk,
};
use crate::probe::{
    failure::Failure,
    progress::Progress,
    resolve::NameResolver,
    script::{Ended, How, Run},
};

/// How long one of the runner's addresses may take to take a connection, before the next one is tried.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// A way to the runner that takes more than this part of a script's time is to blame where that is too short.
const LONG_WAY: u32 = 10;

/// Where a runner listens: a name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    host: String,
    port: u16,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("'{text}' is no HOST:PORT, such as runner.health.svc:8443");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        ServerName::try_from(host).map_err(|_| wrong())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A runner behind a [`super::Door`].
#[derive(Debug)]
pub struct Remote {
    place: Place,
    name: ServerName<'static>,
    config: Kept<ClientConfig>,
}

impl Remote {
    /// The runner at `place`, which must show a certificate for that name, signed by one of `files`' authorities.
    ///
    /// # Errors
    /// The files cannot be read, or do not hold what they should.
    pub fn new(place: Place, files: PemFiles) -> Result<Self, PemError> {
        let name = ServerName::try_from(place.host.clone()).map_err(PemError::new)?;
        let config = Kept::load(files, |pem| {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS13])
                .map_err(PemError::new)?
                .with_root_certificates(pem.authorities)
                .with_client_auth_cert(pem.chain, pem.key)
                .map_err(|error| PemError::new(format!("certificate and key do not work together: {error}")))?;
            // Every run is of whoever has a good certificate now.
            config.resumption = Resumption::disabled();
            Ok(config)
        })?;
        Ok(Self { place, name, config })
    }

    /// Has it make one run.
    pub(in crate::probe) async fn ask(&self, run: &Run, resolver: &NameResolver) -> Result<Ended, Failure> {
        let begun = Instant::now();
        let exchange = async {
            let stream = self.connect(run.timeout, resolver).await?;
            // Lines are short, and their end is waited for.
            stream.set_nodelay(true)?;
            let connector = TlsConnector::from(self.config.current());
            let mut stream = connector.connect(self.name.clone(), stream).await?;
            // The answer is waited for until the deadline of the whole: the script has what the way there has left.
            let way = begun.elapsed();
            let rest = Run { timeout: run.timeout.saturating_sub(way), ..run.clone() };
            let ended = talk(&mut stream, &rest).await?;
            Ok(if way > run.timeout / LONG_WAY { cut_short(ended) } else { ended })
        };
        in_time(&self.place, run, exchange).await
    }

    async fn connect(&self, time: Duration, resolver: &NameResolver) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for address in self.addresses(time, resolver).await? {
            match timeout(CONNECT_PATIENCE.min(time), TcpStream::connect((address, self.place.port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(late) => last = late.into(),
            }
        }
        Err(last)
    }

    async fn addresses(&self, time: Duration, resolver: &NameResolver) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = self.place.host.parse() {
            return Ok(vec![address]);
        }
        // A clock of its own: that the runner's name takes long is nothing the target's name does.
        let found = resolver.look_up(&self.place.host, &Progress::start(time)).await;
        found.map(|found| found.addresses).map_err(|failure| io::Error::other(failure.message))
    }
}

/// What a script might have done with all its time nobody knows.
fn cut_short(ended: Ended) -> Ended {
    match ended.how {
        How::TimedOut => {
            let why = "the way to its runner took so long that it had only part of its time";
            Ended { how: How::Overloaded(why.into()), ..ended }
        }
        _ => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spent_on_the_way_is_not_the_scripts() {
        let ended = |how| Ended { how, output: "begun".into() };
        assert!(matches!(cut_short(ended(How::TimedOut)).how, How::Overloaded(_)));
        assert_eq!(cut_short(ended(How::Exited(1))), ended(How::Exited(1)));
    }

    #[test]
    fn a_place_is_a_name_or_an_address_with_a_port() {
        for text in ["runner:8443", "runner.health.svc.cluster.local:1", "10.0.0.1:65535", "[2001:db8::1]:8443"] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()), Ok(text.to_owned()));
        }
        for text in ["runner", ":8443", "runner:0", "runner:65536", "a b:1", "", "runner:", "https://runner:8443"] {
            let error = text.parse::<Place>().expect_err(text);
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }
}
