//! What a configuration file may hold, and what is said of one that it may not.

use keelson_daemon::{LogConfig, Problems, Validate, config};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    #[serde(default)]
    workers: u16,
    #[serde(default)]
    peers: Vec<Peer>,
    #[serde(default)]
    logging: LogConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Peer {
    host_name: String,
}

impl Validate for Config {
    fn validate(&self) -> Vec<String> {
        let mut problems = Problems::new();
        problems.check(self.workers < 10, "workers", "must be below 10");
        for (i, peer) in self.peers.iter().enumerate() {
            problems.check(!peer.host_name.is_empty(), &format!("peers[{i}].hostName"), "must not be empty");
        }
        problems.into_vec()
    }

    fn logging(&self) -> LogConfig {
        self.logging.clone()
    }
}

fn load(text: &str) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    config::load(file.path()).map_err(|e| e.to_string().replace(file.path().to_str().unwrap(), "FILE"))
}

fn refused(text: &str, message: &str) {
    assert_eq!(load(text).unwrap_err(), format!("the configuration FILE is invalid:{message}"));
}

#[test]
fn a_good_file_is_read_and_an_empty_one_means_the_defaults() {
    assert_eq!(load("workers: 3\npeers:\n- hostName: a\n").unwrap().peers[0].host_name, "a");
    assert_eq!(load("# nothing\n").unwrap().workers, 0);
    assert_eq!(load("").unwrap().workers, 0);
}

#[test]
fn an_unknown_key_is_refused_with_its_path() {
    refused(
        "peers:\n- hostName: a\n  port: 1\n",
        " peers[0].port: unknown field `port`, expected one of hostName (line 3, column 3)",
    );
    refused(
        "worker: 3\n",
        " worker: unknown field `worker`, expected one of workers, peers, logging (line 1, column 1)",
    );
}

#[test]
fn a_wrong_type_is_refused_with_its_path() {
    let error = load("peers:\n- hostName: a\nworkers: many\n").unwrap_err();
    assert!(error.contains(" workers: ") && error.contains("line 3"), "{error}");
    let error = load("peers:\n- hostName: [a]\n").unwrap_err();
    assert!(error.contains(" peers[0].hostName: ") && error.contains("line 2"), "{error}");
}

#[test]
fn all_problems_are_told_at_once() {
    refused(
        "workers: 12\npeers:\n- hostName: ''\nlogging: {level: loudly}\n",
        "\n  workers: must be below 10\n  peers[0].hostName: must not be empty\n  logging.level: \"loudly\" is neither \
         a level (error, warn, info, debug, trace, off) nor TARGET=LEVEL",
    );
}

#[test]
fn broken_yaml_is_refused_with_its_line() {
    let error = load("workers: 3\npeers: [\n").unwrap_err();
    assert!(error.contains("line 2"), "{error}");
}
