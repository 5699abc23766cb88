// amqplib's own recovery: after the server was killed the connection comes back by itself, sets up its channels again,
// and the consumer gets what was confirmed before and what is published afterwards.
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
  // Without a listener the loss of the connection would end the program.
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
