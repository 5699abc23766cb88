// A consumer that keeps what it is given, and lets others wait for it.
'use strict';

class Deliveries {
  constructor() {
    this.all = [];
    this.waiting = [];
  }

  /** Consumes a queue into this; what it was told by the server instead of a message is kept as null. */
  async consume(channel, queue, options) {
    this.channel = channel;
    this.tag = (await channel.consume(queue, (message) => this.take(message), options)).consumerTag;
    return this;
  }

  take(message) {
    this.all.push(message);
    this.waiting = this.waiting.filter(({ count, resolve }) => this.all.length < count || resolve());
  }

  /** The first `count` of them, as soon as they are there. */
  async first(count) {
    if (this.all.length < count) {
      await new Promise((resolve) => this.waiting.push({ count, resolve }));
    }
    return this.all.slice(0, count);
  }

  bodies() {
    return this.all.map((message) => message.content.toString());
  }
}

module.exports = { Deliveries };
