# `cargo run` and `make test` need nothing but Rust; the rest says what it needs.

.PHONY: run test check bench conformance clients crash

# The server, as people should run it.
run:
	cargo run --release

# Unit tests, and the end-to-end tests against the real binary.
test:
	cargo test --quiet

# What has to hold before a change lands.
check:
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --test clients -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items
	cargo test --quiet

# The behaviour tests against a real Redis, which is started here from the system's redis-server:
# an expectation that it does not meet is a wrong test.
conformance:
	@command -v redis-server >/dev/null || { echo "conformance: no redis-server on the PATH"; exit 1; }
	@dir=$$(mktemp -d) && port=$${CONFORMANCE_PORT:-7379} && \
	redis-server --port $$port --dir $$dir --save '' --appendonly no --daemonize yes \
		--pidfile $$dir/pid --logfile $$dir/log --enable-debug-command yes >/dev/null && \
	trap 'kill $$(cat $$dir/pid); rm -rf $$dir' EXIT && \
	for i in 1 2 3 4 5 6 7 8 9 10; do redis-cli -p $$port ping >/dev/null 2>&1 && break; sleep 0.2; done && \
	REDIS_ADDR=127.0.0.1:$$port cargo test --quiet --test suite -- --nocapture

# Real clients against this server, installed below target/ by pip and npm; redis-cli and nutcracker are
# taken from the PATH. What cannot be had is said, and fails only with CLIENTS_REQUIRED=1.
clients:
	cargo test --quiet --test clients

# Beside a redis-server on the PATH, interleaved in one run, driven by redis-benchmark.
bench:
	cargo bench --bench compare


# Hundreds of rounds of kill -9 under load, with rewrites in half of them. `make test` has a few.
crash:
	CRASH_ROUNDS=200 cargo test --test suite crash -- --nocapture
