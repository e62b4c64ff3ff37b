//! From a URL to a transport: backends, the registry, and strict reading of URLs.

use std::{
    borrow::Cow, collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc, time::Duration,
};

use url::Url;

use crate::{
    error::{Error, ErrorKind, Result},
    transport::Transport,
};

pub use crate::{endpoint::Endpoint, root_ca::RootCa};

/// A connecting transport.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Arc<dyn Transport>>> + Send>>;

/// What [`Backend::connect`] returns, of a future that makes a transport.
pub fn connecting<T: Transport>(
    connect: impl Future<Output = Result<T>> + Send + 'static,
) -> Connecting {
    Box::pin(async {
        let transport: Arc<dyn Transport> = Arc::new(connect.await?);
        Ok(transport)
    })
}

/// Describes one backend: which URLs it takes and how it connects. Every backend crate exports one constant of it.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    /// Name, which is also the name of the cargo feature.
    pub name: &'static str,
    /// URL schemes it takes, the main one first.
    pub schemes: &'static [&'static str],
    /// Connects. Resolves once a first session is up, or with an error by the backend's connect deadline.
    pub connect: fn(BackendUrl) -> Connecting,
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    Enabled(Backend),
    Disabled {
        feature: &'static str,
        schemes: &'static [&'static str],
    },
}

/// The backends a program can choose from by URL. A plain value: third parties add theirs.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// An empty registry.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// Adds a backend.
    #[must_use]
    pub fn with(mut self, backend: Backend) -> Self {
        self.entries.push(Entry::Enabled(backend));
        self
    }

    /// Adds a refusal for schemes whose backend was not compiled in, so that the error can name the cargo feature.
    #[must_use]
    pub fn with_disabled(
        mut self,
        feature: &'static str,
        schemes: &'static [&'static str],
    ) -> Self {
        self.entries.push(Entry::Disabled { feature, schemes });
        self
    }

    /// All schemes that can be connected to.
    pub fn schemes(&self) -> Vec<&'static str> {
        let enabled = self.entries.iter().filter_map(|entry| match entry {
            Entry::Enabled(backend) => Some(backend.schemes),
            Entry::Disabled { .. } => None,
        });
        enabled.flatten().copied().collect()
    }

    /// Connects to the broker that `url` names.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a URL that cannot be read, an unknown scheme or option, or a backend that is not
    /// compiled in; otherwise what the backend says. No error repeats the URL, which may hold a password.
    pub async fn connect(&self, url: &str) -> Result<Arc<dyn Transport>> {
        let url = BackendUrl::parse(url)?;
        for entry in &self.entries {
            match entry {
                Entry::Enabled(backend) if backend.schemes.contains(&url.scheme()) => {
                    return (backend.connect)(url).await;
                }
                Entry::Disabled { feature, schemes } if schemes.contains(&url.scheme()) => {
                    return Err(Error::new(
                        ErrorKind::Config,
                        "connect",
                        format!(
                            "scheme {:?} needs the cargo feature {feature:?} of socketioxide-adapter",
                            url.scheme()
                        ),
                    ));
                }
                _ => {}
            }
        }
        Err(Error::new(
            ErrorKind::Config,
            "connect",
            format!(
                "unknown scheme {:?}, expected one of {}",
                url.scheme(),
                self.schemes().join(", ")
            ),
        ))
    }
}

/// A broker URL whose options are taken one by one; what nobody took is an error.
#[derive(Clone)]
pub struct BackendUrl {
    url: Url,
    /// Hosts after the first one, each as a URL without anything else.
    more_hosts: Vec<Url>,
    options: BTreeMap<String, String>,
    known: Vec<&'static str>,
}

impl BackendUrl {
    /// Reads a URL such as `redis://user:password@host:6379/0?prefix=chat`. There may be several hosts, with commas between
    /// them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is not a URL or gives an option twice.
    pub fn parse(text: &str) -> Result<Self> {
        let read = |text: &str| {
            Url::parse(text).map_err(|error| {
                config(format!(
                    "not a broker URL ({error}), expected something like redis://127.0.0.1:6379"
                ))
            })
        };
        let (first, more) = split_hosts(text);
        let mut url = read(&first)?;
        let more = more.iter().map(|host| read(host));
        let more_hosts = more.collect::<Result<Vec<_>>>()?;
        let mut options = BTreeMap::new();
        for (key, value) in url.query_pairs() {
            if options.insert(key.to_string(), value.to_string()).is_some() {
                return Err(config(format!("option {key:?} is given twice")));
            }
        }
        url.set_query(None);
        Ok(Self {
            url,
            more_hosts,
            options,
            known: Vec::new(),
        })
    }

    /// The same URL with another scheme: for a backend that reads the rest as another one does.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a URL of this kind cannot have that scheme.
    pub fn with_scheme(mut self, scheme: &str) -> Result<Self> {
        let changed = self.url.set_scheme(scheme);
        changed.map_err(|()| config(format!("not a URL for {scheme}://")))?;
        Ok(self)
    }

    /// The scheme, lowercase.
    pub fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// Host and the rest of the URL without its options. Treat it as a secret: it may hold a password.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// The host, an IPv6 address without its brackets; `None` if the URL gives none.
    pub fn host(&self) -> Option<String> {
        host(&self.url)
    }

    /// Takes all hosts, in order, each with its port if it has one. Who never asks for them gets an error from
    /// [`finish`](Self::finish) if there are several.
    pub fn take_hosts(&mut self) -> Vec<(String, Option<u16>)> {
        let more = std::mem::take(&mut self.more_hosts);
        let all = std::iter::once(&self.url).chain(&more);
        all.filter_map(|url| Some((host(url)?, url.port())))
            .collect()
    }

    /// What stands after the host, percent-decoded: empty, or a slash and the rest.
    pub fn path(&self) -> String {
        decode(self.url.path())
    }

    /// The user name, percent-decoded; `None` if the URL gives none.
    pub fn username(&self) -> Option<String> {
        Some(decode(self.url.username())).filter(|name| !name.is_empty())
    }

    /// The password, percent-decoded.
    pub fn password(&self) -> Option<String> {
        self.url.password().map(decode)
    }

    /// Takes the option `key`, as text.
    pub fn take(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        self.options.remove(key)
    }

    /// Takes the option `key` and reads it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the key and `expected`, never the value.
    pub fn take_parsed<T: std::str::FromStr>(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Result<Option<T>> {
        let value = self.take(key);
        value
            .map(|value| {
                value
                    .parse()
                    .map_err(|_| config(format!("option {key:?} must be {expected}")))
            })
            .transpose()
    }

    /// Takes the option `key` as a time: a whole number and its unit, `500ms` or `5s`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the key, never the value.
    pub fn take_duration(&mut self, key: &'static str) -> Result<Option<Duration>> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let read = |digits: &str, unit: fn(u64) -> Duration| digits.parse().ok().map(unit);
        let time = match (value.strip_suffix("ms"), value.strip_suffix('s')) {
            (Some(digits), _) => read(digits, Duration::from_millis),
            (None, Some(digits)) => read(digits, Duration::from_secs),
            (None, None) => None,
        };
        time.map(Some)
            .ok_or_else(|| config(format!("option {key:?} must be a time such as 500ms or 5s")))
    }

    /// Takes the option `key` as [`take_duration`](Self::take_duration) does, into `time`, which stays as it is without it.
    ///
    /// # Errors
    /// As [`take_duration`](Self::take_duration).
    pub fn read_duration(&mut self, key: &'static str, time: &mut Duration) -> Result<()> {
        *time = self.take_duration(key)?.unwrap_or(*time);
        Ok(())
    }

    /// Ends the reading: every option must have been taken, and every host if there are several.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the first unknown key, the nearest known one and all known ones.
    pub fn finish(self) -> Result<()> {
        if !self.more_hosts.is_empty() {
            let message = format!("{}:// takes one host", self.scheme());
            return Err(config(message));
        }
        let Some(unknown) = self.options.keys().next() else {
            return Ok(());
        };
        let nearest = self
            .known
            .iter()
            .map(|known| (distance(unknown, known), *known))
            .min()
            .filter(|(distance, known)| *distance <= known.len().div_ceil(2));
        let hint = match nearest {
            Some((_, known)) => format!(", did you mean {known:?}?"),
            None => String::new(),
        };
        let choices: Cow<'_, str> = if self.known.is_empty() {
            "this scheme takes no options".into()
        } else {
            format!("known options: {}", self.known.join(", ")).into()
        };
        Err(config(format!(
            "unknown option {unknown:?} for {}://{hint} ({choices})",
            self.scheme()
        )))
    }
}

/// Shows scheme and host; never the credentials or the values of options.
impl fmt::Debug for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}",
            self.scheme(),
            self.url.host_str().unwrap_or_default()
        )
    }
}

fn config(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, "broker url", message)
}

/// The URL with the first of its hosts, and a URL for each of the others.
fn split_hosts(text: &str) -> (Cow<'_, str>, Vec<String>) {
    let whole = (Cow::Borrowed(text), Vec::new());
    let Some((scheme, rest)) = text.split_once("://") else {
        return whole;
    };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let mut hosts = hosts.split(',');
    let first = hosts.next().unwrap_or_default();
    let more: Vec<String> = hosts.map(|host| format!("{scheme}://{host}")).collect();
    if more.is_empty() {
        return whole;
    }
    (format!("{scheme}://{login}{first}{tail}").into(), more)
}

fn host(url: &Url) -> Option<String> {
    match url.host()? {
        url::Host::Domain(name) => Some(decode(name)).filter(|name| !name.is_empty()),
        url::Host::Ipv4(ip) => Some(ip.to_string()),
        url::Host::Ipv6(ip) => Some(ip.to_string()),
    }
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

/// Edit distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_option_is_named_with_its_nearest_match_but_not_its_value() {
        let mut url = BackendUrl::parse("redis://u:s3cret@h/0?prefx=s3cret").unwrap();
        assert_eq!(url.take("prefix"), None);
        let error = url.finish().unwrap_err().to_string();
        assert_eq!(
            error,
            "broker url: unknown option \"prefx\" for redis://, did you mean \"prefix\"? (known options: prefix)"
        );
    }

    #[test]
    fn options_are_read_once_and_strictly() {
        assert!(BackendUrl::parse("redis://h?a=1&a=2").is_err());
        let mut url = BackendUrl::parse("redis://h?db=x").unwrap();
        let error = url
            .take_parsed::<u8>("db", "a number from 0 to 255")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "broker url: option \"db\" must be a number from 0 to 255"
        );
    }

    #[test]
    fn times_have_a_unit() {
        let mut url = BackendUrl::parse("redis://h?a=500ms&b=5s&c=5&d=s").unwrap();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(url.take_duration("a").unwrap(), ms(500));
        assert_eq!(url.take_duration("b").unwrap(), ms(5_000));
        assert_eq!(url.take_duration("e").unwrap(), None);
        assert!(url.take_duration("c").is_err());
        let (mut a, mut e) = (Duration::ZERO, Duration::ZERO);
        let mut again = BackendUrl::parse("redis://h?a=500ms&c=5").unwrap();
        assert!(
            again.read_duration("a", &mut a).is_ok() && again.read_duration("e", &mut e).is_ok()
        );
        assert_eq!((Some(a), e), (ms(500), Duration::ZERO));
        assert!(again.read_duration("c", &mut a).is_err());
        assert_eq!(
            url.take_duration("d").unwrap_err().to_string(),
            "broker url: option \"d\" must be a time such as 500ms or 5s"
        );
    }

    #[test]
    fn another_scheme_keeps_the_rest() {
        let url = BackendUrl::parse("redis+streams://u:p@h:1/2?prefix=chat").unwrap();
        let mut url = url.with_scheme("redis").unwrap();
        assert_eq!(url.scheme(), "redis");
        assert_eq!((url.host(), url.path()), (Some("h".into()), "/2".into()));
        assert_eq!(url.password().as_deref(), Some("p"));
        assert_eq!(url.take("prefix").as_deref(), Some("chat"));
        assert!(url.with_scheme("https").is_err());
    }

    #[test]
    fn host_and_path_are_decoded() {
        let parts = |url: &str| {
            let url = BackendUrl::parse(url).unwrap();
            (url.host(), url.path())
        };
        let host = |name: &str| Some(name.to_owned());
        assert_eq!(parts("redis://h:1/0"), (host("h"), "/0".to_owned()));
        assert_eq!(parts("redis://[::1]"), (host("::1"), String::new()));
        assert_eq!(parts("redis+unix:///a%20b"), (None, "/a b".to_owned()));
    }

    #[test]
    fn several_hosts_are_for_those_who_ask() {
        let url = "redis+cluster://u:p,w@a:1,[::1]:2,c/0?x=1";
        let mut several = BackendUrl::parse(url).unwrap();
        assert_eq!(several.password().as_deref(), Some("p,w"));
        assert_eq!(
            (several.path().as_str(), several.take("x")),
            ("/0", Some("1".into()))
        );
        let host = |name: &str, port| (name.to_owned(), port);
        let hosts = [host("a", Some(1)), host("::1", Some(2)), host("c", None)];
        assert_eq!(several.take_hosts(), hosts);
        assert!(several.finish().is_ok());
        let error = BackendUrl::parse("redis://a,b").unwrap().finish();
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "broker url: redis:// takes one host");
        assert!(BackendUrl::parse("redis://a,b:s3cret").is_err());
        // A comma elsewhere separates nothing.
        assert!(
            BackendUrl::parse("redis+unix:///a,b?c=d,e")
                .unwrap()
                .host()
                .is_none()
        );
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let url = BackendUrl::parse("redis://us%40er:p%2Fw@h:1/0").unwrap();
        assert_eq!(url.username().as_deref(), Some("us@er"));
        assert_eq!(url.password().as_deref(), Some("p/w"));
        assert_eq!(format!("{url:?}"), "redis://h");
    }

    #[tokio::test]
    async fn an_unknown_scheme_lists_what_there_is_and_a_disabled_one_names_its_feature() {
        let registry = Registry::new()
            .with(Backend {
                name: "memory",
                schemes: &["memory"],
                connect: |_| unreachable!("not connected in this test"),
            })
            .with_disabled("nats", &["nats"]);
        let unknown = registry.connect("kafka://h").await.unwrap_err().to_string();
        assert_eq!(
            unknown,
            "connect: unknown scheme \"kafka\", expected one of memory"
        );
        let disabled = registry.connect("nats://h").await.unwrap_err().to_string();
        assert_eq!(
            disabled,
            "connect: scheme \"nats\" needs the cargo feature \"nats\" of socketioxide-adapter"
        );
        let garbage = registry.connect("s3cret").await.unwrap_err().to_string();
        assert!(!garbage.contains("s3cret"), "{garbage}");
    }
}
