// A publisher and a consumer with amqplib, whose server is killed. They connect again when the event 'close' reports that
// their connection is lost. All messages come. The publisher sends the second half of its messages only after the kill, so
// that neither can finish before.
'use strict';

const assert = require('node:assert/strict');
const amqplib = require('amqplib');
const { url, mustBeOursToKill, killServer, main } = require('./server');

const QUEUE = 'node reconnects';
const COUNT = 200;

/** Connects, and connects again each time the connection is lost, until it is stopped. Calls `start` with each connection. */
class Steady {
  constructor(start) {
    this.start = start;
    this.stopped = false;
    this.connections = 0;
  }

  async connect() {
    while (!this.stopped) {
      try {
        this.connection = await amqplib.connect(url);
        break;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
    this.connections += 1;
    this.connection.on('error', () => {});
    this.connection.once('close', () => this.stopped || this.connect());
    // If it fails because the connection is lost, 'close' comes and it starts again.
    await this.start(this.connection).catch(() => {});
  }

  async stop() {
    this.stopped = true;
    await this.connection.close();
  }
}

main(async () => {
  mustBeOursToKill();
  const confirmed = new Set();
  const seen = new Set();
  let allSeen;
  const finished = new Promise((resolve) => (allSeen = resolve));
  let goOn;
  const killed = new Promise((resolve) => (goOn = resolve));

  const publisher = new Steady(async (connection) => {
    const channel = await connection.createConfirmChannel();
    channel.on('error', () => {});
    await channel.assertQueue(QUEUE, { durable: true });
    for (let number = 0; number < COUNT; number += 1) {
      if (number === COUNT / 2) await killed;
      if (!confirmed.has(number)) {
        channel.sendToQueue(QUEUE, Buffer.from(String(number)), { persistent: true });
        await channel.waitForConfirms();
        confirmed.add(number);
      }
    }
  });
  const consumer = new Steady(async (connection) => {
    const channel = await connection.createChannel();
    channel.on('error', () => {});
    await channel.assertQueue(QUEUE, { durable: true });
    await channel.prefetch(10);
    await channel.consume(QUEUE, (message) => {
      seen.add(Number(message.content.toString()));
      channel.ack(message);
      if (seen.size === COUNT) allSeen();
    });
  });
  const published = publisher.connect();
  await consumer.connect();
  while (seen.size < COUNT / 4) await new Promise(setImmediate);
  await killServer();
  goOn();
  await finished;
  await published;
  assert.ok(publisher.connections >= 2 && consumer.connections >= 2, 'both have connected again');
  await Promise.all([publisher.stop(), consumer.stop()]);
});
