// The brokers that the end-to-end tests run on, a row for each, by the scheme of its URL.

/**
 * `keeps`: the broker's log gives a node what it missed, so that a restart loses nothing.
 * `restarts`: how often the broker is killed under load; fewer where a start takes seconds.
 */
const ALL = [
  { scheme: "redis", keeps: false, restarts: 5 },
  { scheme: "redis+streams", keeps: true, restarts: 5 },
  { scheme: "nats", keeps: false, restarts: 5 },
  { scheme: "nats+jetstream", keeps: true, restarts: 5 },
  { scheme: "amqp", keeps: false, restarts: 2 },
  { scheme: "amqp+streams", keeps: true, restarts: 2 },
];

/** Those that `E2E_BUSES` names, separated by commas; all of them without it. */
export const buses = process.env.E2E_BUSES
  ? process.env.E2E_BUSES.split(",").map((name) => {
    const bus = ALL.find(({ scheme }) => scheme === name);
    if (!bus) throw new Error(`E2E_BUSES: unknown scheme "${name}", expected one of ${ALL.map(({ scheme }) => scheme).join(", ")}`);
    return bus;
  })
  : ALL;
