// The address of the server, and the request to kill it. conformance/README.md describes both.
'use strict';

const readline = require('node:readline');

// The exit code of a program that cannot run here.
const SKIPPED = 77;

const address = process.env.FERRYMQ_AT;
if (!address) {
  console.error('say which server: FERRYMQ_AT=HOST:PORT');
  process.exit(1);
}

/** Ends the program as skipped if the server must not be killed. */
function mustBeOursToKill() {
  if (!process.env.FERRYMQ_MAY_KILL) {
    console.log('skipped: this program kills its server, and FERRYMQ_AT names one that is not ours to kill');
    process.exit(SKIPPED);
  }
}

/** Asks the runner to kill and restart the server. Resolves when the server is ready again. */
function killServer() {
  return new Promise((resolve) => {
    const answers = readline.createInterface({ input: process.stdin });
    answers.once('line', () => {
      answers.close();
      resolve();
    });
    console.log('kill the server');
  });
}

/** Runs a program to its end. If it throws an error, prints the error and fails. */
function main(program) {
  program().then(
    () => process.exit(0),
    (problem) => {
      console.error(problem);
      process.exit(1);
    },
  );
}

module.exports = { url: `amqp://guest:guest@${address}/%2F`, mustBeOursToKill, killServer, main };
