// The brokers that the end-to-end tests run on, a row for each, by the scheme of its URL.

/** `keeps`: the broker's log gives a node what it missed, so that a restart loses nothing. */
const ALL = [
  { scheme: "redis", keeps: false },
  { scheme: "nats", keeps: false },
  { scheme: "nats+jetstream", keeps: true },
];

/** Those that `E2E_BUSES` names, separated by commas; all of them without it. */
export const buses = process.env.E2E_BUSES
  ? process.env.E2E_BUSES.split(",").map((name) => {
    const bus = ALL.find(({ scheme }) => scheme === name);
    if (!bus) throw new Error(`E2E_BUSES: unknown scheme "${name}", expected one of ${ALL.map(({ scheme }) => scheme).join(", ")}`);
    return bus;
  })
  : ALL;
