//! One `redis-server`: alone, a part of something larger, or a sentinel.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tempfile::TempDir;

use super::admin::{self, Reply};
use crate::{
    error::{Error, Result},
    port,
    process::Process,
    tls::Certificates,
};

const INSTALL: &str = "apt-get install redis-server";
const READY: &str = "Ready to accept connections";
const SENTINEL_READY: &str = "+monitor";
const IN_USE: &str = "Address already in use";
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Somebody else may take the port between our look at it and the server's.
const PORT_TRIES: usize = 20;

/// Which client connections to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// Those with subscriptions.
    Pubsub,
    /// All others.
    Normal,
}

/// How a server is set up. By default: no password, no TLS, nothing written to disk.
#[derive(Debug, Default, Clone)]
pub struct RedisBuilder {
    pub(super) password: Option<String>,
    tls: bool,
    /// Made by whom several servers belong to, so that they trust each other.
    shared: Option<Certificates>,
    sentinel: bool,
    directives: Vec<String>,
}

impl RedisBuilder {
    /// Requires `password` of the default user.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.config(format!("requirepass {password:?}"))
    }

    /// Adds an ACL user, for example `user("alice", "on >secret ~* &app:* +@all")`.
    #[must_use]
    pub fn user(self, name: &str, rules: &str) -> Self {
        self.config(format!("user {name} {rules}"))
    }

    /// Speaks TLS, and only TLS, on the port; see [`Redis::certificates`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Writes everything to disk as well (AOF): what was answered survives [`Redis::kill`].
    #[must_use]
    pub fn append_only(self) -> Self {
        // With "everysec", what is written while the disk is busy waits in memory, and dies with the server.
        // A rewrite is done by a child of the server, which would outlive a kill and go on to write.
        self.config("appendonly yes")
            .config("appendfsync no")
            .config("auto-aof-rewrite-percentage 0")
    }

    /// Like [`tls`](Self::tls), with certificates that other servers have as well; speaks TLS with these too.
    #[must_use]
    pub(super) fn shared_tls(mut self, certificates: Option<&Certificates>) -> Self {
        let Some(certificates) = certificates else {
            return self;
        };
        self.shared = Some(certificates.clone());
        self.tls().config("tls-replication yes")
    }

    /// Is a sentinel and not a server.
    #[must_use]
    pub(super) fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    /// Adds a line to the configuration file, for example `config("maxclients 20")`.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.directives.push(line.into());
        self
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Errors
    /// If the program is missing or the server does not start; with the end of its log.
    pub fn start(self) -> Result<Redis> {
        let dir = tempfile::Builder::new().prefix("redis-lab-").tempdir();
        let dir = dir.map_err(|error| Error::io("temporary folder", &error))?;
        fs::create_dir(dir.path().join("data")).map_err(|error| Error::io("data", &error))?;
        let certificates = match &self.shared {
            Some(shared) => Some(shared.clone()),
            None if self.tls => Some(Certificates::generate(dir.path())?),
            None => None,
        };
        let mut redis = Redis {
            port: 0,
            setup: self,
            certificates,
            process: Mutex::new(None),
            dir,
        };
        let mut last = Error::new("not tried");
        for _ in 0..PORT_TRIES {
            redis.port = port::free()?;
            redis.write_config()?;
            match redis.restart() {
                Err(error) if error.to_string().contains(IN_USE) => last = error,
                done => return done.map(|()| redis),
            }
        }
        Err(last)
    }
}

/// A Redis server on 127.0.0.1. Dropping it kills the server and removes its folder.
///
/// The program is `redis-server`, or what the environment variable `LAB_REDIS_SERVER` names, for example a
/// `valkey-server`.
pub struct Redis {
    port: u16,
    setup: RedisBuilder,
    certificates: Option<Certificates>,
    process: Mutex<Option<Process>>,
    dir: TempDir,
}

impl Redis {
    /// Starts a server with the defaults of [`RedisBuilder`].
    ///
    /// # Errors
    /// As [`RedisBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Sets up a server.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// The port on 127.0.0.1; the same after every restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the server, with the default user's password if it has one.
    pub fn url(&self) -> String {
        match &self.setup.password {
            Some(password) => self.url_as("", password),
            None => format!("{}://127.0.0.1:{}", self.scheme(), self.port),
        }
    }

    /// The URL with these credentials.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!(
            "{}://{user}:{password}@127.0.0.1:{}",
            self.scheme(),
            self.port
        )
    }

    fn scheme(&self) -> &'static str {
        if self.setup.tls { "rediss" } else { "redis" }
    }

    /// The unix socket, which every server listens on as well.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// The certificates of a server with TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// What the server wrote since its last start; empty while it is down.
    pub fn log(&self) -> String {
        self.lock().as_ref().map(Process::log).unwrap_or_default()
    }

    /// Starts the server again on the same port, after [`kill`](Self::kill) or [`stop`](Self::stop).
    ///
    /// # Errors
    /// If it is running, or does not start.
    pub fn restart(&self) -> Result<()> {
        let mut running = self.lock();
        if running.is_some() {
            return Err(Error::new("redis-server is already running"));
        }
        let config = self.dir.path().join("redis.conf");
        let sentinel = self.setup.sentinel;
        let program = env::var_os("LAB_REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        command.arg(&config).current_dir(&self.dir);
        if sentinel {
            command.arg("--sentinel");
        }
        // A sentinel keeps what it knows in its configuration file.
        if !sentinel {
            self.write_config()?;
        }
        let mut process = Process::spawn(command, INSTALL, &self.dir.path().join("server.log"))?;
        let ready = if sentinel { SENTINEL_READY } else { READY };
        process
            .wait_until(START_LIMIT, |log| log.contains(ready))
            .map_err(|error| Error::new(format!("redis-server: {error}")))?;
        *running = Some(process);
        Ok(())
    }

    /// Kills the server at once (SIGKILL).
    ///
    /// # Errors
    /// If it is not running.
    pub fn kill(&self) -> Result<()> {
        self.take().map(Process::kill)
    }

    /// Stops the server in order (SIGTERM).
    ///
    /// # Errors
    /// If it is not running, or does not stop and was killed.
    pub fn stop(&self) -> Result<()> {
        self.take()?.stop(STOP_GRACE)
    }

    /// Freezes the server (SIGSTOP): connections stay open, nothing is answered.
    ///
    /// # Errors
    /// If it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.lock().as_ref().ok_or_else(down)?.freeze()
    }

    /// Lets a frozen server run on (SIGCONT).
    ///
    /// # Errors
    /// If it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.lock().as_ref().ok_or_else(down)?.thaw()
    }

    /// Deletes all data: what a running server holds, and its files.
    ///
    /// # Errors
    /// If it cannot be deleted.
    pub fn wipe(&self) -> Result<()> {
        if self.lock().is_some() {
            return self.command(&["FLUSHALL"]).map(drop);
        }
        let data = self.dir.path().join("data");
        fs::remove_dir_all(&data)
            .and_then(|()| fs::create_dir(&data))
            .map_err(|error| Error::io("wipe", &error))
    }

    /// Keeps a copy of the data folder, for [`roll_back`](Self::roll_back).
    ///
    /// # Errors
    /// If the server is running, or the folder cannot be copied.
    pub fn save(&self) -> Result<()> {
        self.copy_data("data", "saved")
    }

    /// Puts the data folder back to what it was at [`save`](Self::save).
    ///
    /// # Errors
    /// If the server is running, or the folder cannot be copied.
    pub fn roll_back(&self) -> Result<()> {
        self.copy_data("saved", "data")
    }

    fn copy_data(&self, from: &str, to: &str) -> Result<()> {
        if self.lock().is_some() {
            return Err(Error::new("redis-server is running"));
        }
        let (from, to) = (self.dir.path().join(from), self.dir.path().join(to));
        let _ = fs::remove_dir_all(&to);
        copy(&from, &to).map_err(|error| Error::io("copy", &error))
    }

    /// Closes all client connections of a kind from the server's side; returns how many.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub fn kill_clients(&self, kind: ClientKind) -> Result<i64> {
        let kind = match kind {
            ClientKind::Pubsub => "pubsub",
            ClientKind::Normal => "normal",
        };
        let reply = self.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"])?;
        Ok(reply.int().unwrap_or_default())
    }

    /// Sends a command as the default user, over the unix socket.
    ///
    /// # Errors
    /// What the server answers, or that it does not.
    pub fn command(&self, args: &[&str]) -> Result<Reply> {
        admin::command(&self.socket(), self.setup.password.as_deref(), args)
            .map_err(|error| Error::io(args.join(" "), &error))
    }

    /// Whether it was started and neither killed nor stopped since.
    pub(super) fn is_running(&self) -> bool {
        self.lock().is_some()
    }

    fn write_config(&self) -> Result<()> {
        fs::write(self.dir.path().join("redis.conf"), self.config())
            .map_err(|error| Error::io("redis.conf", &error))
    }

    fn config(&self) -> String {
        let (port, dir) = (self.port, self.dir.path().display());
        let ports = match &self.certificates {
            None => format!("port {port}"),
            Some(tls) => format!(
                "port 0\ntls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients no",
                tls.cert.display(),
                tls.key.display(),
                tls.ca.display()
            ),
        };
        // The files are for the tests alone, and none of them is worth a background save.
        let saving = if self.setup.sentinel {
            ""
        } else {
            "save \"\"\nappendonly no\n"
        };
        format!(
            "bind 127.0.0.1\n{ports}\nunixsocket {dir}/redis.sock\ndir {dir}/data\n{saving}daemonize no\n{}\n",
            self.setup.directives.join("\n")
        )
    }

    fn take(&self) -> Result<Process> {
        self.lock().take().ok_or_else(down)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn down() -> Error {
    Error::new("redis-server is not running")
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("port", &self.port)
            .field("dir", &self.dir.path())
            .finish_non_exhaustive()
    }
}
