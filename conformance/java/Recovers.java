import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.Recoverable;
import com.rabbitmq.client.RecoveryListener;
import java.util.List;
import java.util.concurrent.CountDownLatch;

/**
 * The Java client's automatic recovery. After the server was killed, the client connects again and declares again what is
 * not durable, and its consumers go on. All confirmed messages are there.
 */
final class Recovers {
    private Recovers() {}

    public static void main(String[] arguments) throws Exception {
        Server.mustBeOursToKill();
        ConnectionFactory factory = Server.factory();
        factory.setNetworkRecoveryInterval(20);
        try (Connection connection = factory.newConnection()) {
            CountDownLatch recovered = new CountDownLatch(1);
            ((Recoverable) connection).addRecoveryListener(new RecoveryListener() {
                @Override
                public void handleRecovery(Recoverable recoverable) {
                    recovered.countDown();
                }

                @Override
                public void handleRecoveryStarted(Recoverable recoverable) {}
            });
            Channel channel = connection.createChannel();
            channel.confirmSelect();
            channel.queueDeclare("java recovers", true, false, false, null);
            for (int number = 0; number < 19; number++) {
                publish(channel, "", "java recovers", String.valueOf(number));
            }
            Deliveries durable = consume(connection, "java recovers", 5);
            List<Delivery> before = durable.next(5);
            // A confirm shows that earlier deliveries are on disk.
            publish(channel, "", "java recovers", "19");
            // These are lost when the server is killed: a transient exchange, and a queue whose name the server chose.
            channel.exchangeDeclare("java topics", "topic");
            String named = channel.queueDeclare().getQueue();
            channel.queueBind(named, "java topics", "a.#");
            Deliveries transientOnes = consume(connection, named, 0);

            new Server().kill();
            recovered.await();

            publish(channel, "", "java recovers", "20");
            publish(channel, "java topics", "a.b", "routed again");
            Expect.equal("routed again", Deliveries.body(transientOnes.next()));
            Expect.equal(List.of("0", "1", "2", "3", "4"), Deliveries.bodies(before));
            List<Delivery> after = durable.next(5);
            Expect.equal(List.of("0", "1", "2", "3", "4"), Deliveries.bodies(after));
            Expect.that(after.stream().allMatch(delivery -> delivery.getEnvelope().isRedeliver()), "these are redelivered");
            Expect.equal(16L, channel.messageCount("java recovers"));
        }
    }

    private static void publish(Channel channel, String exchange, String key, String body) throws Exception {
        try {
            channel.basicPublish(exchange, key, MessageProperties.PERSISTENT_TEXT_PLAIN, body.getBytes());
        } catch (AlreadyClosedException problem) {
            throw new AssertionError("the channel has not recovered", problem);
        }
        channel.waitForConfirmsOrDie();
    }

    private static Deliveries consume(Connection connection, String queue, int prefetch) throws Exception {
        Channel channel = connection.createChannel();
        channel.basicQos(prefetch);
        Deliveries deliveries = new Deliveries();
        channel.basicConsume(queue, false, deliveries, deliveries);
        return deliveries;
    }
}
