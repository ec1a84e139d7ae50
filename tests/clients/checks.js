// Shared by the checks in JavaScript: their list, running them, and waiting.
//
// A check's name is a sentence that must be true. Each starts with an empty server, and a failed one does not
// stop the others. The exit status tells whether all passed.
'use strict';

const [PORT, LOCKED_PORT] = process.argv.slice(2).map(Number);
const BINARY = Buffer.concat([Buffer.from(Array.from({length: 256}, (_, i) => i)), Buffer.from('\r\n$-1\r\n')]);
const CHECKS = [];

function check(sentence, holds) {
  CHECKS.push([sentence, holds]);
}

// `open` opens a connection, `clear` empties its server, `closeAll` closes all connections of a check.
async function run(open, clear, closeAll) {
  let failed = CHECKS.length;
  process.on('exit', () => (process.exitCode = Number(failed > 0)));
  for (const [sentence, holds] of CHECKS) {
    try {
      const db = await open();
      await clear(db);
      await Promise.race([holds(db), tooLong()]);
      failed -= 1;
      console.log(`ok: ${sentence}`);
    } catch (error) {
      console.log(`FAILED: ${sentence}\n${error.stack}`);
    }
    closeAll();
  }
  process.exit(); // a failed check may have left connections open
}

function tooLong() {
  const fail = (_, reject) => setTimeout(() => reject(new Error('it takes too long')), 15000).unref();
  return new Promise(fail);
}

async function eventually(what, condition) {
  const deadline = Date.now() + 10000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`timed out waiting until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

// The error with which a promise is rejected.
async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('there was no error');
}

// The lines of CLIENT LIST as objects.
function parseClients(text) {
  const fields = (line) => line.split(' ').map((field) => [field.split('=', 1)[0], field.slice(field.indexOf('=') + 1)]);
  return text.trim().split('\n').map((line) => Object.fromEntries(fields(line)));
}

module.exports = {PORT, LOCKED_PORT, BINARY, check, run, eventually, errorOf, parseClients};
