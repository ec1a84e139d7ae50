// What a JavaScript program expects of the server, through ioredis.
//
//     node ioredis.js PORT LOCKED_PORT
//
// The server at LOCKED_PORT requires the password `secret`. This file must also pass against a real Redis.
'use strict';

const assert = require('assert/strict');
const Redis = require('ioredis');
const {PORT, LOCKED_PORT, BINARY, check, run, eventually, errorOf, parseClients} = require('./checks');

const opened = [];

// ioredis sends INFO to find out whether the server is ready.
async function connect(options = {}) {
  const client = new Redis({port: PORT, lazyConnect: true, retryStrategy: null, ...options});
  client.on('error', () => {}); // the rejected promise reports the error
  opened.push(client);
  await client.connect();
  return client;
}

const closeAll = () => opened.splice(0).forEach((client) => client.disconnect());

for (const protocol of [2, 3]) {
  check(`the handshake in RESP${protocol} introduces the library`, async (db) => {
    const named = await connect({connectionName: 'worker', db: 3, protocol});
    const me = parseClients(await named.client('INFO'))[0];
    assert.equal(me.name, 'worker');
    assert.equal(me.db, '3');
    assert.equal(me.resp, String(protocol));
    assert.equal(await named.client('GETNAME'), 'worker');
    assert.equal(await named.client('SETNAME', 'renamed'), 'OK');
    const mine = parseClients(await db.client('LIST')).filter((other) => other.name === 'renamed');
    assert.equal(mine.length, 1);
    // Redis stores the library's name since 7.2.
    if ('lib-name' in me) assert.match(me['lib-name'], /^ioredis/);
  });

  check(`hashes come as objects in RESP${protocol}`, async () => {
    const db = await connect({protocol});
    assert.equal(await db.hset('user:1', {name: 'ada', born: 1815}), 2);
    assert.deepEqual({...(await db.hgetall('user:1'))}, {name: 'ada', born: '1815'});
    assert.deepEqual({...(await db.hgetall('missing'))}, {});
    assert.deepEqual(await db.hmget('user:1', 'name', 'none'), ['ada', null]);
    assert.equal(await db.hincrby('user:1', 'born', 1), 1816);
    assert.equal(await db.hdel('user:1', 'name', 'none'), 1);
    assert.deepEqual(await db.hkeys('user:1'), ['born']);
  });

  check(`messages reach their subscribers in RESP${protocol}`, async (db) => {
    const hub = await connect({protocol});
    const heard = [];
    hub.on('message', (channel, message) => heard.push([channel, message]));
    hub.on('pmessage', (pattern, channel, message) => heard.push([pattern, channel, message]));
    assert.equal(await hub.subscribe('news', 'other'), 2);
    assert.equal(await hub.psubscribe('wea*'), 3);
    assert.equal(await db.publish('news', 'héllo'), 1);
    assert.equal(await db.publish('weather', 'rain'), 1);
    await eventually('both are heard', () => heard.length === 2);
    assert.deepEqual(heard, [['news', 'héllo'], ['wea*', 'weather', 'rain']]);
    const bytes = [];
    hub.on('messageBuffer', (channel, message) => bytes.push(message));
    assert.equal(await db.publish('other', BINARY), 1);
    await eventually('the bytes are heard', () => bytes.length === 1);
    assert.deepEqual(bytes[0], BINARY);
    assert.deepEqual(await db.pubsub('NUMSUB', 'news', 'none'), ['news', 1, 'none', 0]);
    assert.equal(await hub.unsubscribe('news', 'other'), 1);
    assert.equal(await hub.punsubscribe('wea*'), 0);
    assert.deepEqual(await db.pubsub('CHANNELS'), []);
    assert.equal(await hub.set('k', 'v'), 'OK');
  });
}

check('strings', async (db) => {
  assert.equal(await db.set('greeting', 'hello'), 'OK');
  assert.equal(await db.get('greeting'), 'hello');
  assert.equal(await db.get('missing'), null);
  assert.equal(await db.set('greeting', 'again', 'NX'), null);
  assert.equal(await db.set('greeting', 'again', 'GET'), 'hello');
  assert.equal(await db.mset({a: 1, b: 2}), 'OK');
  assert.deepEqual(await db.mget('a', 'b', 'missing'), ['1', '2', null]);
  assert.equal(await db.incrby('n', 41), 41);
  assert.equal(await db.incrbyfloat('x', 0.1), '0.1');
  assert.equal(await db.getrange('greeting', -2, -1), 'in');
  assert.equal(await db.del('a', 'b', 'missing'), 2);
});

check('values are bytes of any kind and size', async (db) => {
  assert.equal(await db.set(BINARY, BINARY), 'OK');
  assert.deepEqual(await db.getBuffer(BINARY), BINARY);
  const large = Buffer.alloc(1 << 20, BINARY);
  assert.equal(await db.hset('hash', BINARY, large), 1);
  assert.ok(large.equals(await db.hgetBuffer('hash', BINARY)));
});

check('keys expire', async (db) => {
  assert.equal(await db.set('k', 'v', 'EX', 100), 'OK');
  const left = await db.ttl('k');
  assert.ok(left >= 95 && left <= 100, `${left} seconds`);
  assert.equal(await db.persist('k'), 1);
  assert.equal(await db.ttl('k'), -1);
  assert.equal(await db.psetex('soon', 20, 'v'), 'OK');
  await eventually('the key has expired', async () => (await db.get('soon')) === null);
});

check('errors are distinguished by their first word', async (db) => {
  await db.hset('h', 'f', 'v');
  let error = await errorOf(db.get('h'));
  assert.equal(error.message, 'WRONGTYPE Operation against a key holding the wrong kind of value');
  error = await errorOf(db.call('NOSUCH', 'a', 'b c'));
  assert.equal(error.message, "ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b c' ");
  error = await errorOf(db.call('GET'));
  assert.equal(error.message, "ERR wrong number of arguments for 'get' command");
  error = await errorOf(db.select(99));
  assert.equal(error.message, 'ERR DB index is out of range');
  assert.equal(await db.ping(), 'PONG');
});

check('a pipeline of 10,000 commands', async (db) => {
  const pipeline = db.pipeline();
  for (let i = 0; i < 5000; i++) pipeline.set(`key:${i}`, i);
  for (let i = 0; i < 5000; i++) pipeline.get(`key:${i}`);
  const replies = await pipeline.exec();
  assert.equal(replies.length, 10000);
  assert.ok(replies.slice(0, 5000).every(([error, reply]) => error === null && reply === 'OK'));
  assert.ok(replies.slice(5000).every(([error, reply], i) => error === null && reply === String(i)));
  assert.equal(await db.dbsize(), 5000);
});

check('a pipeline larger than all buffers', async (db) => {
  const value = 'x'.repeat(10500);
  const pipeline = db.pipeline();
  for (let i = 0; i < 1200; i++) pipeline.echo(value);
  assert.ok((await pipeline.exec()).every(([error, reply]) => error === null && reply === value));
});

check('a transaction runs completely or not at all', async (db) => {
  const results = await db.multi().set('a', 1).incr('a').hset('h', 'f', 'v').get('a').exec();
  assert.deepEqual(results, [[null, 'OK'], [null, 2], [null, 1], [null, '2']]);
  const watcher = await connect();
  await watcher.watch('a');
  const seen = Number(await watcher.get('a'));
  await db.set('a', 100);
  assert.equal(await watcher.multi().set('a', seen + 1).exec(), null);
  assert.equal(await db.get('a'), '100');
  // A failing command undoes nothing; one that cannot be queued aborts the transaction.
  const mixed = await db.multi().set('b', 'text').incr('b').get('b').exec();
  assert.deepEqual(mixed[0], [null, 'OK']);
  assert.equal(mixed[1][0].message, 'ERR value is not an integer or out of range');
  assert.deepEqual(mixed[2], [null, 'text']);
  const aborted = await errorOf(db.multi().set('b', 'changed').call('GET').exec());
  assert.equal(aborted.message, 'EXECABORT Transaction discarded because of previous errors.');
  assert.equal(await db.get('b'), 'text');
  assert.equal(await db.multi({pipeline: false}), 'OK');
  assert.equal(await db.set('b', 'queued'), 'QUEUED');
  assert.equal(await db.discard(), 'OK');
  assert.equal((await errorOf(db.discard())).message, 'ERR DISCARD without MULTI');
});

check('MONITOR shows what others send', async (db) => {
  const monitor = await db.monitor();
  opened.push(monitor);
  const seen = [];
  monitor.on('monitor', (time, args, source, database) => seen.push([args, database]));
  await db.select(2);
  await db.set('k', 'with "quotes"');
  await eventually('it is seen', () => seen.some(([args]) => args[0] === 'set'));
  assert.deepEqual(seen.find(([args]) => args[0] === 'set'), [['set', 'k', 'with "quotes"'], '2']);
});

check('scans return every key and field', async (db) => {
  const pipeline = db.pipeline();
  for (let i = 0; i < 1000; i++) pipeline.set(`key:${i}`, i).hset('hash', `field:${i}`, i);
  await pipeline.exec();
  const keys = new Set();
  for await (const batch of db.scanStream({match: 'key:*', count: 50})) batch.forEach((key) => keys.add(key));
  assert.equal(keys.size, 1000);
  const fields = new Map();
  for await (const batch of db.hscanStream('hash', {count: 50})) {
    for (let i = 0; i < batch.length; i += 2) fields.set(batch[i], batch[i + 1]);
  }
  assert.equal(fields.size, 1000);
  assert.equal(fields.get('field:77'), '77');
});

check('a killed connection is replaced with its database and subscriptions', async (db) => {
  const options = {retryStrategy: () => 5, connectionName: 'worker', db: 3};
  const [worker, hub] = await Promise.all([connect(options), connect(options)]);
  const heard = [];
  hub.on('message', (channel, message) => heard.push(message));
  await hub.subscribe('news');
  const first = await worker.client('ID');
  assert.equal(await db.client('KILL', 'ID', first), 1);
  await eventually('there is a new one', async () => (await worker.client('ID')) > first);
  assert.equal(await worker.client('GETNAME'), 'worker');
  assert.equal(await worker.set('k', 'v'), 'OK');
  await db.select(3);
  assert.equal(await db.get('k'), 'v');
  assert.equal(await db.client('KILL', 'TYPE', 'pubsub'), 1);
  await eventually('someone hears again', async () => (await db.publish('news', 'again')) === 1);
  await eventually('it is heard', () => heard.includes('again'));
});

check('a password is required', async () => {
  const replyTo = (options) => {
    const client = new Redis({port: LOCKED_PORT, retryStrategy: null, ...options});
    client.on('error', () => {});
    opened.push(client);
    return client.ping().catch((error) => error.message);
  };
  for (const protocol of [2, 3]) {
    assert.equal(await replyTo({protocol, password: 'secret'}), 'PONG');
    assert.equal(await replyTo({protocol, username: 'default', password: 'secret'}), 'PONG');
    const refused = 'WRONGPASS invalid username-password pair or user is disabled.';
    assert.equal(await replyTo({protocol, password: 'wrong'}), refused);
  }
  assert.equal(await replyTo({protocol: 2}), 'NOAUTH Authentication required.');
  assert.match(await replyTo({protocol: 3}), /^NOAUTH HELLO must be called with the client already authenticated/);
});

run(connect, (db) => db.flushall(), closeAll);
