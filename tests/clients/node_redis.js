// What a JavaScript program expects of the server, through node-redis.
//
//     node node_redis.js PORT LOCKED_PORT
//
// The server at LOCKED_PORT requires the password `secret`. This file must also pass against a real Redis.
'use strict';

const assert = require('assert/strict');
const {createClient, RESP_TYPES, WatchError} = require('redis');
const {version} = require('redis/package.json');
const {PORT, LOCKED_PORT, BINARY, check, run, eventually, errorOf, parseClients} = require('./checks');

const opened = [];

async function connect({port = PORT, reconnectStrategy = false, ...options} = {}) {
  const client = createClient({socket: {port, reconnectStrategy}, RESP: 3, ...options});
  client.on('error', () => {}); // the rejected promise reports the error
  opened.push(client);
  return client.connect();
}

const closeAll = () => opened.splice(0).filter((client) => client.isOpen).forEach((client) => client.destroy());

const asBuffers = (client) => client.withTypeMapping({[RESP_TYPES.BLOB_STRING]: Buffer});

for (const RESP of [2, 3]) {
  check(`the handshake in RESP${RESP} introduces the library`, async (db) => {
    const named = await connect({RESP, name: 'worker', database: 3});
    const me = parseClients(await named.sendCommand(['CLIENT', 'INFO']))[0];
    assert.equal(me.name, 'worker');
    assert.equal(me.db, '3');
    assert.equal(me.resp, String(RESP));
    assert.equal(await named.clientGetName(), 'worker');
    await named.clientSetName('renamed');
    const mine = (await db.clientList()).filter((other) => other.name === 'renamed');
    assert.equal(mine.length, 1);
    // Redis stores the library's name since 7.2.
    if ('lib-name' in me) assert.match(me['lib-name'], /^node-redis/);
    if ('lib-ver' in me) assert.ok(me['lib-ver'].length > 0);
  });

  check(`hashes come as objects in RESP${RESP}`, async () => {
    const db = await connect({RESP});
    assert.equal(await db.hSet('user:1', {name: 'ada', born: 1815}), 2);
    assert.deepEqual({...(await db.hGetAll('user:1'))}, {name: 'ada', born: '1815'});
    assert.deepEqual({...(await db.hGetAll('missing'))}, {});
    assert.deepEqual(await db.hmGet('user:1', ['name', 'none']), ['ada', null]);
    assert.equal(await db.hGet('user:1', 'none'), null);
    assert.equal(await db.hIncrBy('user:1', 'born', 1), 1816);
    assert.equal(await db.hIncrByFloat('user:1', 'height', 1.5), '1.5');
    assert.deepEqual((await db.hKeys('user:1')).sort(), ['born', 'height', 'name']);
    assert.equal(Number(await db.hExists('user:1', 'name')), 1);
    assert.equal(await db.hDel('user:1', ['name', 'none']), 1);
    assert.equal(await db.hLen('user:1'), 2);
  });

  check(`messages reach their subscribers in RESP${RESP}`, async (db) => {
    const hub = await connect({RESP});
    const heard = [];
    const listener = (message, channel) => heard.push([channel, message]);
    await hub.subscribe(['news', 'other'], listener);
    await hub.pSubscribe('wea*', listener);
    await hub.subscribe(BINARY.toString('latin1'), listener);
    assert.equal(await db.publish('news', 'héllo'), 1);
    assert.equal(await db.publish('weather', 'rain'), 1);
    assert.equal(await db.publish('nobody', 'hears'), 0);
    await eventually('both are heard', () => heard.length === 2);
    assert.deepEqual(heard, [['news', 'héllo'], ['weather', 'rain']]);
    assert.deepEqual({...(await db.pubSubNumSub(['news', 'none']))}, {news: 1, none: 0});
    assert.equal(await db.pubSubNumPat(), 1);
    const bytes = [];
    await hub.subscribe('bytes', (message) => bytes.push(message), true);
    await db.publish('bytes', BINARY);
    await eventually('the bytes are heard', () => bytes.length === 1);
    assert.deepEqual(bytes[0], BINARY);
    // A subscriber's connection may send other commands only in RESP3.
    assert.match(await hub.ping(), /^pong$/i);
    if (RESP === 3) assert.equal(await hub.set('k', 'v'), 'OK');
    await hub.unsubscribe();
    await hub.pUnsubscribe();
    assert.deepEqual(await db.pubSubChannels(), []);
    assert.equal(await hub.get('k'), RESP === 3 ? 'v' : null);
  });
}

check('strings', async (db) => {
  assert.equal(await db.set('greeting', 'hello'), 'OK');
  assert.equal(await db.get('greeting'), 'hello');
  assert.equal(await db.get('missing'), null);
  assert.equal(await db.set('greeting', 'again', {condition: 'NX'}), null);
  assert.equal(await db.set('greeting', 'again', {GET: true}), 'hello');
  assert.equal(await db.append('greeting', '!'), 6);
  assert.equal(await db.mSet({a: '1', b: '2'}), 'OK');
  assert.deepEqual(await db.mGet(['a', 'b', 'missing']), ['1', '2', null]);
  assert.equal(await db.incrBy('n', 41), 41);
  assert.equal(await db.decr('n'), 40);
  assert.equal(await db.incrByFloat('x', 0.1), '0.1');
  assert.equal(await db.getDel('n'), '40');
  assert.equal(await db.del(['a', 'b', 'missing']), 2);
  assert.equal(await db.type('greeting'), 'string');
});

check('values are bytes of any kind and size', async (db) => {
  const buffers = asBuffers(db);
  assert.equal(await db.set(BINARY, BINARY), 'OK');
  assert.deepEqual(await buffers.get(BINARY), BINARY);
  const large = Buffer.alloc(1 << 20, BINARY);
  assert.equal(await db.set('large', large), 'OK');
  assert.ok(large.equals(await buffers.get('large')));
});

check('keys expire', async (db) => {
  assert.equal(await db.set('k', 'v', {expiration: {type: 'EX', value: 100}}), 'OK');
  const left = await db.ttl('k');
  assert.ok(left >= 95 && left <= 100, `${left} seconds`);
  assert.equal(Number(await db.persist('k')), 1);
  assert.equal(await db.ttl('k'), -1);
  assert.equal(await db.ttl('missing'), -2);
  await db.pSetEx('soon', 20, 'v');
  await eventually('the key has expired', async () => (await db.get('soon')) === null);
});

check('maps are maps in RESP3', async (db) => {
  await db.hSet('h', {f: 'v'});
  const asMaps = db.withTypeMapping({[RESP_TYPES.MAP]: Map});
  assert.deepEqual(await asMaps.sendCommand(['HGETALL', 'h']), new Map([['f', 'v']]));
  const hello = await asMaps.sendCommand(['HELLO', '3']);
  assert.equal(hello.get('proto'), 3);
  assert.equal(hello.get('server'), 'redis');
  assert.match(await db.info('server'), /^# Server\r\nredis_version:/);
  const appendonly = await db.configGet('appendonl?');
  assert.deepEqual(Object.keys(appendonly), ['appendonly']);
});

check('errors are distinguished by their first word', async (db) => {
  await db.hSet('h', 'f', 'v');
  let error = await errorOf(db.get('h'));
  assert.equal(error.message, 'WRONGTYPE Operation against a key holding the wrong kind of value');
  error = await errorOf(db.sendCommand(['NOSUCH', 'a', 'b c']));
  assert.equal(error.message, "ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b c' ");
  error = await errorOf(db.sendCommand(['GET']));
  assert.equal(error.message, "ERR wrong number of arguments for 'get' command");
  error = await errorOf(connect({database: 99}));
  assert.equal(error.message, 'ERR DB index is out of range');
  assert.equal(await db.ping(), 'PONG');
});

check('a pipeline of 10,000 commands', async (db) => {
  const numbers = Array.from({length: 5000}, (_, i) => i);
  const sets = numbers.map((i) => db.set(`key:${i}`, String(i)));
  const gets = numbers.map((i) => db.get(`key:${i}`));
  assert.ok((await Promise.all(sets)).every((reply) => reply === 'OK'));
  assert.deepEqual(await Promise.all(gets), numbers.map(String));
  assert.equal(await db.dbSize(), 5000);
});

check('a pipeline larger than all buffers', async (db) => {
  const value = 'x'.repeat(10500);
  const replies = await Promise.all(Array.from({length: 1200}, () => db.echo(value)));
  assert.ok(replies.every((reply) => reply === value));
});

check('a transaction runs completely or not at all', async (db) => {
  const replies = await db.multi().set('a', '1').incr('a').hSet('h', 'f', 'v').get('a').exec();
  assert.deepEqual(replies, ['OK', 2, 1, '2']);
  const watcher = await connect();
  await watcher.watch('a');
  const seen = Number(await watcher.get('a'));
  await db.set('a', '100');
  const error = await errorOf(watcher.multi().set('a', String(seen + 1)).exec());
  assert.ok(error instanceof WatchError, error);
  assert.equal(await db.get('a'), '100');
  await watcher.watch('a');
  assert.deepEqual(await watcher.multi().set('a', '101').exec(), ['OK']);
  assert.equal(await db.get('a'), '101');
  // A failing command undoes nothing; one that cannot be queued aborts the transaction.
  const failed = await errorOf(db.multi().set('b', 'text').incr('b').get('b').exec());
  assert.equal(failed.replies[0], 'OK');
  assert.equal(failed.replies[1].message, 'ERR value is not an integer or out of range');
  assert.equal(failed.replies[2], 'text');
  const aborted = await errorOf(db.multi().set('b', 'changed').addCommand(['GET']).exec());
  assert.equal(aborted.message, "ERR wrong number of arguments for 'get' command");
  assert.equal(await db.get('b'), 'text');
});

check('scans return every key and field', async (db) => {
  const numbers = Array.from({length: 1000}, (_, i) => i);
  await Promise.all(numbers.flatMap((i) => [db.set(`key:${i}`, i), db.hSet('hash', `field:${i}`, i)]));
  const keys = new Set();
  for await (const batch of db.scanIterator({MATCH: 'key:*', COUNT: 50})) batch.forEach((key) => keys.add(key));
  assert.deepEqual(keys, new Set(numbers.map((i) => `key:${i}`)));
  const fields = new Map();
  for await (const batch of db.hScanIterator('hash', {COUNT: 50})) {
    batch.forEach(({field, value}) => fields.set(field, value));
  }
  assert.deepEqual(fields.size, 1000);
  assert.equal(fields.get('field:77'), '77');
});

check('a killed connection is replaced', async (db) => {
  const worker = await connect({name: 'worker', reconnectStrategy: () => 5});
  const first = await worker.clientId();
  assert.equal(await db.sendCommand(['CLIENT', 'KILL', 'ID', String(first)]), 1);
  await eventually('there is a new one', async () => (await worker.clientId().catch(() => first)) > first);
  assert.equal(await worker.clientGetName(), 'worker');
  assert.equal(await worker.set('k', 'v'), 'OK');
});

check('a password is required', async () => {
  const right = await connect({port: LOCKED_PORT, password: 'secret'});
  assert.equal(await right.ping(), 'PONG');
  const wrong = await errorOf(connect({port: LOCKED_PORT, password: 'wrong'}));
  assert.equal(wrong.message, 'WRONGPASS invalid username-password pair or user is disabled.');
  const none = await errorOf(connect({port: LOCKED_PORT, RESP: 3}));
  assert.match(none.message, /^NOAUTH HELLO must be called with the client already authenticated/);
  const old = await connect({port: LOCKED_PORT, RESP: 2});
  assert.equal((await errorOf(old.get('k'))).message, 'NOAUTH Authentication required.');
});

check('clients may cache', async (db) => {
  const cache = {ttl: 0, maxEntries: 0, evictPolicy: 'LRU'};
  const caching = await connect({clientSideCache: cache});
  await db.set('k', 'old');
  assert.equal(await caching.get('k'), 'old');
  await db.set('k', 'new');
  await eventually('the cache has heard of the change', async () => (await caching.get('k')) === 'new');
});

run(connect, (db) => db.flushAll(), closeAll);
