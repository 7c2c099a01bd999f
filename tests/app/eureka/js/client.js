// eureka-js-client with deltas on: registers, and prints what it sees of the VIP "web" after every fetch, one JSON line each.
const { Eureka } = require('eureka-js-client');

const [port, id] = process.argv.slice(2);
const client = new Eureka({
  instance: {
    instanceId: id,
    app: 'web',
    hostName: `host-${id}`,
    ipAddr: '127.0.0.1',
    port: { $: 9000, '@enabled': 'true' },
    vipAddress: 'web',
    dataCenterInfo: { '@class': 'com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo', name: 'MyOwn' },
  },
  eureka: {
    host: '127.0.0.1',
    port: Number(port),
    servicePath: '/eureka/apps/',
    heartbeatInterval: 200,
    registryFetchInterval: 100,
    useDelta: true,
    filterUpInstances: false,
  },
});
client.logger.level('error');

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
client.on('registered', () => say({ registered: id }));
client.on('registryUpdated', () => {
  const found = client.getInstancesByVipAddress('web');
  say({ web: Object.fromEntries(found.map((one) => [one.instanceId, one.status]).sort()) });
});
client.start((error) => error && say({ error: String(error) }));
process.on('SIGTERM', () => client.stop(() => process.exit(0)));
