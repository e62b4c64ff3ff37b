//! One `rabbitmq-server`, which is a cluster of its own.

use std::{
    fmt, fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tempfile::TempDir;

use super::{home, ports::Ports};
use crate::{
    error::{Error, Result},
    process::Process,
    tls::Certificates,
};

const INSTALL: &str = "apt-get install rabbitmq-server";
/// The scripts themselves: the `rabbitmq-server` in the path of Debian changes the user and writes to `/var`.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";
/// Where the server believes it is installed, in the folder of the lab.
const HOME: &str = "home";
const READY: &str = "Server startup complete";
const IN_USE: &str = "eaddrinuse";
/// Seconds on an idle machine; the Erlang machine loads thousands of modules.
const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_GRACE: Duration = Duration::from_secs(20);
const MEMORY: &str = "512MB";
const PORT_TRIES: usize = 5;

/// Makes the server keep book of its streams, and writes the book to disk. Otherwise a server that is killed within a second
/// of its first stream has lost the streams that it has: it says for ever that their node is down.
const KEEP_STREAMS: &str = r#"
    Stream = [{<<"x-queue-type">>, longstr, <<"stream">>}],
    Name = rabbit_misc:r(<<"/">>, queue, <<"lab">>),
    {new, Queue} = rabbit_amqqueue:declare(Name, true, false, Stream, none, <<"lab">>),
    {ok, _} = rabbit_amqqueue:delete(Queue, false, false, <<"lab">>),
    ok = dets:sync(ra_coordination_directory_reverse)."#;

const CLOSE_CONNECTIONS: &str =
    r#"rabbit_networking:close_connections(rabbit_networking:connections(), "cut by the lab")."#;

/// How a server is set up. By default: user `guest` with password `guest`, no TLS, no plugins.
#[derive(Debug, Default, Clone)]
pub struct RabbitMqBuilder {
    user: Option<(String, String)>,
    tls: bool,
    streams: bool,
    directives: Vec<String>,
}

impl RabbitMqBuilder {
    /// The only user, instead of `guest`.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.user = Some((name.to_owned(), password.to_owned()));
        self
    }

    /// Speaks TLS, and only TLS, on the port; see [`RabbitMq::certificates`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Can be killed at any time without losing its streams; takes a second more whenever it starts without data.
    #[must_use]
    pub fn streams(mut self) -> Self {
        self.streams = true;
        self
    }

    /// Adds a line to `rabbitmq.conf`, for example `config("heartbeat = 10")`.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.directives.push(line.into());
        self
    }

    /// Starts the server and waits until it accepts connections: seconds, not milliseconds.
    ///
    /// # Errors
    /// If the program is missing or the server does not start; with the end of its log.
    pub fn start(self) -> Result<RabbitMq> {
        let mut last = Error::new("not tried");
        for _ in 0..PORT_TRIES {
            match RabbitMq::start_on(self.clone(), Ports::free()?) {
                Err(error) if error.to_string().contains(IN_USE) => last = error,
                done => return done,
            }
        }
        Err(last)
    }
}

/// A RabbitMQ server on 127.0.0.1. Dropping it kills the server and removes its folder.
pub struct RabbitMq {
    ports: Ports,
    setup: RabbitMqBuilder,
    certificates: Option<Certificates>,
    cookie: String,
    // Dropped in this order: the server, its port mapper, the folder.
    process: Mutex<Option<Process>>,
    _epmd: Process,
    dir: TempDir,
}

impl RabbitMq {
    /// Starts a server with the defaults of [`RabbitMqBuilder`].
    ///
    /// # Errors
    /// As [`RabbitMqBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Sets up a server.
    pub fn builder() -> RabbitMqBuilder {
        RabbitMqBuilder::default()
    }

    fn start_on(setup: RabbitMqBuilder, ports: Ports) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("rabbitmq-lab-").tempdir();
        let dir = dir.map_err(|error| Error::io("temporary folder", &error))?;
        let certificates = setup
            .tls
            .then(|| Certificates::generate(dir.path()))
            .transpose()?;
        let server = Self {
            _epmd: ports.start_epmd(INSTALL, dir.path())?,
            ports,
            setup,
            certificates,
            cookie: format!("{:032x}", fastrand::u128(..)),
            process: Mutex::new(None),
            dir,
        };
        // Read only by its owner, or Erlang refuses it. The servers of other labs have other cookies.
        server.write(".erlang.cookie", 0o400, &server.cookie)?;
        server.write("enabled_plugins", 0o600, "[].")?;
        server.write("rabbitmq.conf", 0o600, &server.config())?;
        fs::create_dir(server.data()).map_err(|error| Error::io("data", &error))?;
        home::make(&server.path(HOME), Path::new(SCRIPTS), INSTALL)?;
        server.restart()?;
        Ok(server)
    }

    /// The port on 127.0.0.1; the same after every restart.
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// The URL of the server with the credentials of its user.
    pub fn url(&self) -> String {
        let (user, password) = self.credentials();
        self.url_as(user, password)
    }

    /// The URL with these credentials.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        let scheme = if self.setup.tls { "amqps" } else { "amqp" };
        format!("{scheme}://{user}:{password}@127.0.0.1:{}", self.port())
    }

    /// The certificates of a server with TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// What the server wrote since its last start; empty while it is down.
    pub fn log(&self) -> String {
        self.lock().as_ref().map(Process::log).unwrap_or_default()
    }

    /// Starts the server again on the same port with its data, after [`kill`](Self::kill) or [`stop`](Self::stop).
    ///
    /// # Errors
    /// If it is running, or does not start.
    pub fn restart(&self) -> Result<()> {
        let mut running = self.lock();
        if running.is_some() {
            return Err(Error::new("rabbitmq-server is already running"));
        }
        let data = fs::read_dir(self.data()).map_err(|error| Error::io("data", &error))?;
        let is_new = data.count() == 0;
        let mut command = self.script("rabbitmq-server");
        command
            // The script becomes the server, as systemd wants it. Otherwise it would stay as a shell in between, and
            // signals would reach only that.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                // One thread that does not spin while it waits: the machine has others to serve.
                format!(
                    "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -pa {} \
                     -start_epmd false -kernel inet_dist_use_interface {{127,0,0,1}}",
                    home::applications(&self.path(HOME)).display()
                ),
            );
        let mut process = Process::spawn(command, INSTALL, &self.path("server.log"))?;
        process
            .wait_until(START_LIMIT, |log| log.contains(READY))
            .map_err(|error| Error::new(format!("rabbitmq-server: {error}")))?;
        *running = Some(process);
        if is_new && self.setup.streams {
            self.eval(KEEP_STREAMS)?;
        }
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

    /// Deletes all data of a server that is down.
    ///
    /// # Errors
    /// If it is running, or the data cannot be deleted.
    pub fn wipe(&self) -> Result<()> {
        if self.lock().is_some() {
            return Err(Error::new("rabbitmq-server is running: stop or kill it"));
        }
        fs::remove_dir_all(self.data())
            .and_then(|()| fs::create_dir(self.data()))
            .map_err(|error| Error::io("wipe", &error))
    }

    /// Whether the server is running; a frozen one is.
    pub fn is_running(&self) -> bool {
        self.lock().is_some()
    }

    /// Closes all client connections from the server's side.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub fn close_connections(&self) -> Result<()> {
        self.eval(CLOSE_CONNECTIONS).map(drop)
    }

    /// Lets the server carry out a sequence of Erlang expressions: a hundred times as fast as [`ctl`](Self::ctl).
    fn eval(&self, expressions: &str) -> Result<String> {
        let address = format!("127.0.0.1:{}", self.ports.distribution);
        let mut call = Command::new("erl_call")
            .args([
                "-e",
                "-r",
                "-timeout",
                "30",
                "-c",
                &self.cookie,
                "-address",
                &address,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::io("erl_call", &error))?;
        if let Some(mut stdin) = call.stdin.take() {
            let written = writeln!(stdin, "{expressions}");
            written.map_err(|error| Error::io("erl_call", &error))?;
        }
        let output = call
            .wait_with_output()
            .map_err(|error| Error::io("erl_call", &error))?;
        // It ends well also if the expressions did not.
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && said.starts_with("{ok,") {
            return Ok(said);
        }
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::new(format!("erl_call: {said} {complaint}")))
    }

    /// Raises the memory alarm, or ends it: while it is raised, the server takes nothing from those who publish.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub fn memory_alarm(&self, raised: bool) -> Result<()> {
        let mark: &[&str] = if raised {
            &["set_vm_memory_high_watermark", "0"]
        } else {
            &["set_vm_memory_high_watermark", "absolute", MEMORY]
        };
        self.ctl(mark).map(drop)
    }

    /// Runs `rabbitmqctl --quiet` with these arguments and returns what it prints; takes half a second.
    ///
    /// # Errors
    /// If it fails, with what it says.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let output = self
            .script("rabbitmqctl")
            .args(["--quiet", "--node", &self.node()])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Error::io("rabbitmqctl", &error))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(said(&output.stdout));
        }
        let (out, err) = (said(&output.stdout), said(&output.stderr));
        Err(Error::new(format!(
            "rabbitmqctl {}: {out} {err}",
            args.join(" ")
        )))
    }

    /// A script of the server with everything that makes the node a private one.
    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(Path::new(SCRIPTS).join(name));
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("RABBITMQ_SCRIPTS_DIR", self.path(HOME).join("sbin"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_NODENAME", self.node())
            .env("RABBITMQ_CONFIG_FILE", self.path("rabbitmq.conf"))
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("RABBITMQ_PID_FILE", self.path("pid"))
            .env("RABBITMQ_MNESIA_BASE", self.data())
            .env("RABBITMQ_LOG_BASE", self.path("log"))
            .env("RABBITMQ_PLUGINS_DIR", home::plugins(&self.path(HOME)))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                self.path("enabled_plugins"),
            )
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command
    }

    fn config(&self) -> String {
        let port = self.port();
        let listener = match &self.certificates {
            None => format!("listeners.tcp.1 = 127.0.0.1:{port}\nnum_acceptors.tcp = 1"),
            Some(tls) => format!(
                "listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:{port}\nnum_acceptors.ssl = 1\n\
                 ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
                 ssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false",
                tls.ca.display(),
                tls.cert.display(),
                tls.key.display()
            ),
        };
        let (user, password) = self.credentials();
        format!(
            "{listener}\ndefault_user = {user}\ndefault_pass = {password}\nlog.console = true\nlog.file = false\n\
             vm_memory_high_watermark.absolute = {MEMORY}\ndisk_free_limit.absolute = 10MB\n{}\n",
            self.setup.directives.join("\n")
        )
    }

    fn credentials(&self) -> (&str, &str) {
        match &self.setup.user {
            Some((name, password)) => (name, password),
            None => ("guest", "guest"),
        }
    }

    fn node(&self) -> String {
        format!("lab-{}@localhost", self.port())
    }

    fn data(&self) -> PathBuf {
        self.path("mnesia")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> Result<()> {
        fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(self.path(name))
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Error::io(name, &error))
    }

    fn take(&self) -> Result<Process> {
        self.lock().take().ok_or_else(down)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn down() -> Error {
    Error::new("rabbitmq-server is not running")
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("ports", &self.ports)
            .field("dir", &self.dir.path())
            .finish_non_exhaustive()
    }
}
