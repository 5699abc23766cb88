// amqplib: all properties, confirms, returns, all ways to settle, prefetch, get, and cancel notifications.
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const amqplib = require('amqplib');
const { Deliveries } = require('./deliveries');
const { url, main } = require('./server');

async function properties(connection) {
  const channel = await connection.createConfirmChannel();
  const { queue } = await channel.assertQueue('', { exclusive: true });
  assert.match(queue, /^amq\.gen-/);
  const sent = {
    contentType: 'application/json',
    contentEncoding: 'utf-8',
    headers: { text: 'words', number: 7, large: 2 ** 40, fraction: 0.5, yes: true, list: [1, 'two'], inner: { a: 1 } },
    deliveryMode: 2,
    priority: 3,
    correlationId: 'correlation',
    replyTo: 'somewhere',
    expiration: '60000',
    messageId: 'message',
    timestamp: 1700000000,
    type: 'kind',
    userId: 'guest',
    appId: 'application',
  };
  channel.sendToQueue(queue, Buffer.from('{}'), sent);
  await channel.waitForConfirms();
  const message = await channel.get(queue);
  assert.equal(message.content.toString(), '{}');
  assert.deepEqual(message.fields, {
    deliveryTag: 1,
    redelivered: false,
    exchange: '',
    routingKey: queue,
    messageCount: 0,
  });
  for (const [name, value] of Object.entries(sent)) {
    assert.deepEqual(message.properties[name], value, name);
  }
  channel.ack(message);
  assert.equal(await channel.get(queue), false);
  await channel.close();
}

async function settlements(connection) {
  const publishing = await connection.createConfirmChannel();
  await publishing.assertQueue('node settled', { durable: true });
  for (const body of ['ack', 'nack', 'reject', 'drop']) {
    publishing.sendToQueue('node settled', Buffer.from(body), { persistent: true });
  }
  await publishing.waitForConfirms();

  const channel = await connection.createChannel();
  const deliveries = await new Deliveries().consume(channel, 'node settled');
  const [ack, nack, reject, drop] = await deliveries.first(4);
  assert.deepEqual(deliveries.bodies(), ['ack', 'nack', 'reject', 'drop']);
  assert.ok(deliveries.all.every((message) => !message.fields.redelivered));
  channel.ack(ack);
  channel.nack(nack, false, true);
  channel.reject(reject, true);
  channel.nack(drop, false, false);
  await deliveries.first(6);
  const again = deliveries.all.slice(4);
  assert.deepEqual(again.map((message) => message.content.toString()).sort(), ['nack', 'reject']);
  assert.ok(again.every((message) => message.fields.redelivered));
  channel.ackAll();
  await channel.cancel(deliveries.tag);
  await channel.close();
  assert.deepEqual(await publishing.deleteQueue('node settled'), { messageCount: 0 });
  await publishing.close();
}

/** An unroutable mandatory message is returned before it is confirmed. */
async function returns(connection) {
  const channel = await connection.createConfirmChannel();
  const order = [];
  channel.on('return', (message) => {
    order.push('return');
    assert.equal(message.fields.replyCode, 312);
    assert.equal(message.fields.replyText, 'NO_ROUTE');
    assert.equal(message.content.toString(), 'nobody');
  });
  channel.publish('amq.direct', 'nowhere', Buffer.from('nobody'), { mandatory: true }, () => order.push('confirm'));
  await channel.waitForConfirms();
  assert.deepEqual(order, ['return', 'confirm']);
  await channel.close();
}

/** No more messages than the prefetch count are unacked. After an ack the next one comes. */
async function prefetch(connection) {
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue('', { exclusive: true });
  for (let number = 0; number < 10; number += 1) {
    channel.sendToQueue(queue, Buffer.from(String(number)));
  }
  await channel.prefetch(3);
  const deliveries = await new Deliveries().consume(channel, queue);
  for (let settled = 0; settled < 10; settled += 1) {
    const out = Math.min(settled + 3, 10);
    await deliveries.first(out);
    // A request on the same channel: a further delivery would come before its reply.
    await channel.checkQueue(queue);
    assert.equal(deliveries.all.length, out);
    channel.ack(deliveries.all[settled]);
  }
  assert.deepEqual(deliveries.bodies(), [...Array(10).keys()].map(String));
  await channel.close();
}

async function routing(connection) {
  const channel = await connection.createChannel();
  await channel.assertExchange('node topics', 'topic', { durable: false, autoDelete: true });
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(queue, 'node topics', 'a.*.c');
  await channel.bindQueue(queue, 'node topics', 'z.#');
  for (const key of ['a.b.c', 'a.b.b.c', 'z', 'z.y.x', 'y.z']) {
    channel.publish('node topics', key, Buffer.from(key));
  }
  const deliveries = await new Deliveries().consume(channel, queue, { noAck: true });
  await deliveries.first(3);
  await channel.unbindQueue(queue, 'node topics', 'z.#');
  channel.publish('node topics', 'z', Buffer.from('after'));
  channel.publish('node topics', 'a.1.c', Buffer.from('last'));
  await deliveries.first(4);
  assert.deepEqual(deliveries.bodies(), ['a.b.c', 'z', 'z.y.x', 'last']);
  await channel.close();
}

/** An error closes the channel with its reply code, and the connection stays open. */
async function channelErrors(connection) {
  const channel = await connection.createChannel();
  const ended = once(channel, 'error');
  await assert.rejects(channel.checkQueue('node nowhere'), /404 \(NOT-FOUND\)/);
  const [error] = await ended;
  assert.equal(error.code, 404);
  const other = await connection.createChannel();
  await other.close();
}

/** A consumer gets a null message when another client deletes its queue. */
async function cancelled(connection) {
  const consuming = await connection.createChannel();
  await consuming.assertQueue('node cancelled');
  const deliveries = await new Deliveries().consume(consuming, 'node cancelled');
  const deleting = await connection.createChannel();
  await deleting.deleteQueue('node cancelled');
  assert.deepEqual(await deliveries.first(1), [null]);
  await consuming.close();
  await deleting.close();
}

main(async () => {
  const connection = await amqplib.connect(url);
  for (const part of [properties, settlements, returns, prefetch, routing, channelErrors, cancelled]) {
    await part(connection);
  }
  await connection.close();
});
