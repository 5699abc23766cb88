// A consumer that stores its deliveries, and lets the program wait for them.
'use strict';

class Deliveries {
  constructor() {
    this.all = [];
    this.waiting = [];
  }

  /** Consumes a queue. If the server cancels the consumer, the client gets null instead of a message; it is stored, too. */
  async consume(channel, queue, options) {
    this.channel = channel;
    this.tag = (await channel.consume(queue, (message) => this.take(message), options)).consumerTag;
    return this;
  }

  take(message) {
    this.all.push(message);
    this.waiting = this.waiting.filter(({ count, resolve }) => this.all.length < count || resolve());
  }

  /** Waits for the first `count` deliveries and returns them. */
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
