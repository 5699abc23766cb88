// amqplib's own recovery. After the server was killed, the client connects again and opens its channels again. The consumer
// gets the messages that were confirmed before the kill and those that are published after it.
'use strict';

const assert = require('node:assert/strict');
const amqplib = require('amqplib');
const { Deliveries } = require('./deliveries');
const { url, mustBeOursToKill, killServer, main } = require('./server');

const QUEUE = 'node recovers';

main(async () => {
  mustBeOursToKill();
  let channel;
  const connection = await amqplib.connect(url, {
    recovery: {
      initialDelay: 10,
      maxDelay: 50,
      async setup(model) {
        channel = await model.createConfirmChannel();
        channel.on('error', () => {});
        await channel.assertQueue(QUEUE, { durable: true });
      },
    },
  });
  // Without a listener for errors, a lost connection would end the program.
  connection.on('error', () => {});
  const publish = async (body) => {
    channel.sendToQueue(QUEUE, Buffer.from(body), { persistent: true });
    await channel.waitForConfirms();
  };
  await publish('before');
  const again = new Promise((resolve) => connection.once('connect', resolve));
  await killServer();
  await again;
  await publish('after');
  const deliveries = await new Deliveries().consume(channel, QUEUE, { noAck: true });
  await deliveries.first(2);
  assert.deepEqual(deliveries.bodies(), ['before', 'after']);
  await connection.close();
});
