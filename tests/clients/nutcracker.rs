//! nutcracker, a proxy that distributes keys over servers, in front of two of ours.

use std::fs;
use std::process::Command;

use redis::{Commands, IntoConnectionInfo};

use crate::process::{PATIENCE, Running, Server, eventually, free_port};
use crate::{Check, Servers, directory};

pub(crate) const CHECKS: &[Check] =
    &[("two servers behind nutcracker behave like one", behave_like_one)];

fn behave_like_one(_: &Servers) {
    // It sends the password to the servers, and requires it from its clients.
    let servers = [(); 2].map(|()| Server::start(&["--requirepass", "secret"]));
    let port = free_port();
    let path = directory().join(format!("nutcracker-{}.yml", std::process::id()));
    let settings = format!(
        "pool:\n  listen: 127.0.0.1:{port}\n  redis: true\n  redis_auth: secret\n\
         \x20 hash: fnv1a_64\n  distribution: ketama\n  preconnect: true\n  servers:\n\
         \x20   - 127.0.0.1:{}:1 one\n    - 127.0.0.1:{}:1 two\n",
        servers[0].port, servers[1].port
    );
    fs::write(&path, settings).expect("write the settings of nutcracker");
    let mut command = Command::new("nutcracker");
    command.args(["--stats-port", &free_port().to_string(), "--conf-file"]).arg(&path);
    let proxy = Running::start(&mut command).expect("nutcracker");
    let connect = || {
        let address = format!("redis://:secret@127.0.0.1:{port}").into_connection_info()?;
        // It accepts only commands with keys, and closes the connection when a library introduces itself.
        let quiet = address.redis_settings().clone().set_skip_set_lib_name();
        redis::Client::open(address.set_redis_settings(quiet))?
            .get_connection_with_timeout(PATIENCE)
    };
    eventually("nutcracker answers", || connect().is_ok());
    let mut db = connect().expect("a connection to nutcracker");
    db.set_read_timeout(Some(PATIENCE)).expect("a timeout");

    let keys: Vec<String> = (0..1000).map(|i| format!("key:{i}")).collect();
    let mut fill = redis::pipe();
    for (i, key) in keys.iter().enumerate() {
        fill.set(key, i).ignore();
    }
    let () = fill.query(&mut db).expect("a pipeline through nutcracker");
    let values: Vec<usize> = db.mget(&keys).expect("MGET over both servers");
    assert!(values.into_iter().eq(0..1000));
    let () = db.hset_multiple("user:1", &[("name", "ada"), ("born", "1815")]).expect("HSET");
    let user: Vec<(String, String)> = db.hgetall("user:1").expect("HGETALL");
    assert_eq!(user.len(), 2);
    let () = db.set_ex("soon", "v", 100).expect("SETEX");
    let left: i64 = db.ttl("soon").expect("TTL");
    assert!((95..=100).contains(&left), "{left} seconds");
    let error = db.get::<_, String>("user:1").expect_err("the wrong type");
    assert_eq!(error.code(), Some("WRONGTYPE"));
    let large = vec![b'x'; 1 << 20];
    let () = db.set("large", &large).expect("a large value");
    assert!(db.get::<_, Vec<u8>>("large").expect("the large value") == large);
    let sizes = servers.each_ref().map(|server| -> usize {
        redis::cmd("DBSIZE").query(&mut server.connect("")).expect("DBSIZE")
    });
    assert!(
        sizes.iter().all(|&size| size > 200) && sizes.iter().sum::<usize>() == 1003,
        "{sizes:?}"
    );
    let deleted: usize = db.del(&keys).expect("DEL over both servers");
    assert_eq!(deleted, 1000);
    drop(proxy);
    fs::remove_file(path).expect("remove the settings of nutcracker");
}
