//! redis_exporter, which monitoring systems put beside each Redis: it must understand every section of INFO.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use redis::Commands;

use crate::process::{PATIENCE, Running, eventually, free_port, output_of};
use crate::{Check, Servers};

const PROGRAM: &str = "prometheus-redis-exporter";

pub(crate) const CHECKS: &[Check] =
    &[("an exporter finds the metrics of the server and of single keys", finds_metrics)];

/// Its version, from the line that it logs.
pub(crate) fn version() -> Result<String, String> {
    let line = output_of(Command::new(PROGRAM).arg("--version"), b"", PATIENCE)?;
    let version = line.split_once("Exporter ").and_then(|(_, rest)| rest.split([' ', '-']).next());
    Ok(version.unwrap_or("of unknown version").to_owned())
}

fn finds_metrics(servers: &Servers) {
    let mut db = servers.open.connect("");
    let _: () = db.set("string", "12345").expect("SET");
    let _: () = db.hset("hash", "field", "value").expect("HSET");
    let (port, address) = (free_port(), format!("redis://127.0.0.1:{}", servers.open.port));
    let mut command = Command::new(PROGRAM);
    command.args(["-redis.addr", &address, "-check-single-keys", "string,hash"]);
    command.args(["-export-client-list", "-include-system-metrics"]);
    command.args(["-web.listen-address", &format!("127.0.0.1:{port}")]);
    let exporter = Running::start(&mut command).expect(PROGRAM);
    let mut metrics = String::new();
    eventually("the exporter answers", || {
        metrics = scrape(port).unwrap_or_default();
        !metrics.is_empty()
    });
    for expected in [
        "redis_up 1",
        "redis_exporter_last_scrape_error{err=\"\"} 0",
        "redis_db_keys{db=\"db0\"} 2",
        "redis_key_size{db=\"db0\",key=\"string\"} 5",
        "redis_key_size{db=\"db0\",key=\"hash\"} 1",
        "redis_aof_enabled 1",
        "redis_memory_max_bytes 0",
    ] {
        let found = metrics.lines().any(|line| line == expected);
        assert!(found, "no line {expected}; it said:\n{}\n{metrics}", exporter.output());
    }
}

/// What the exporter serves.
fn scrape(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
