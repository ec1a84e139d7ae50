# `make run` and `make test` need only Rust. Each other target says what else it needs.

.PHONY: run test check bench conformance clients crash

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

# The behaviour tests against a real Redis: starts the redis-server on the PATH. An expectation that
# Redis does not meet is a wrong test.
conformance:
	@command -v redis-server >/dev/null || { echo "conformance: no redis-server on the PATH"; exit 1; }
	@dir=$$(mktemp -d) && port=$${CONFORMANCE_PORT:-7379} && \
	redis-server --port $$port --dir $$dir --save '' --appendonly no --daemonize yes \
		--pidfile $$dir/pid --logfile $$dir/log --enable-debug-command yes >/dev/null && \
	trap 'kill $$pid; while kill -0 $$pid 2>/dev/null; do sleep 0.1; done; rm -rf $$dir' EXIT && \
	for i in 1 2 3 4 5 6 7 8 9 10; do redis-cli -p $$port ping >/dev/null 2>&1 && break; sleep 0.2; done && \
	pid=$$(cat $$dir/pid) && \
	REDIS_ADDR=127.0.0.1:$$port cargo test --quiet --test suite -- --nocapture

# Real clients against this server: pip and npm install them below target/; redis-cli and nutcracker come from
# the PATH. A client that cannot be installed is skipped with a message, or fails with CLIENTS_REQUIRED=1.
clients:
	cargo test --quiet --test clients

# Respite and the redis-server on the PATH in turns, driven by redis-benchmark.
bench:
	cargo bench --bench compare

# 200 rounds of kill -9 under load, half of them during rewrites. `make test` runs a few.
crash:
	CRASH_ROUNDS=200 cargo test --test suite crash -- --nocapture
