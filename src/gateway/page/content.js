'use strict';
// The bytes of files, in order. Invariants: a few chunks are on their way ahead of who reads, never more; a piece
// that failed is asked for again by the next pull, so that a download goes on where it stopped.

const CHUNKS_AHEAD = 6;
const TASKS_AHEAD = 64;
const BLOCKS_AHEAD = 8;

class Content {
  constructor(source, id, root) {
    this.blocks = new Blocks(source);
    this.id = id;
    this.root = root;
  }

  async chunk(reference, ahead) {
    const { pack, offset, sealed } = reference;
    try {
      return await openChunk(this.root, this.id, reference, await this.blocks.read(pack, offset, sealed, ahead));
    } catch (error) {
      if (error.kind !== 'damaged') throw error;
      // The way here may have damaged it, once.
      this.blocks.forget(pack, offset, sealed);
      return openChunk(this.root, this.id, reference, await this.blocks.read(pack, offset, sealed, 0));
    }
  }

  async tree(index, length) {
    const run = (reference) => () => this.chunk(reference, BLOCKS_AHEAD);
    const pieces = new Pieces(index.map((reference) => ({ run: run(reference), cost: 1 })));
    const whole = new Uint8Array(length);
    let at = 0;
    for (let piece = await pieces.next(); piece; piece = await pieces.next()) {
      whole.set(piece, at);
      at += piece.length;
    }
    return new Tree(whole);
  }

  /** Of a file, bytes `start` to `end`, as tasks for `Pieces`. */
  *tasks(tree, number, start, end) {
    const places = tree.chunks(number);
    const ahead = end - start > CHUNK ? BLOCKS_AHEAD : 1;
    for (let place = Math.floor(start / CHUNK); place * CHUNK < end; place += 1) {
      const from = Math.max(start, place * CHUNK) - place * CHUNK;
      const to = Math.min(end - place * CHUNK, CHUNK);
      const at = places.get(place);
      const run = async () => {
        // What has no chunk is zeros.
        if (at === undefined) return new Uint8Array(to - from);
        return (await this.chunk(tree.reference(at), ahead)).subarray(from, to);
      };
      yield { run, cost: 1 };
    }
  }
}

/**
 * Runs tasks ahead and gives their results in order; `finish` of a task sees its own when its turn has come. A task's
 * `cost` is how many chunks it holds in memory.
 */
class Pieces {
  constructor(tasks) {
    this.tasks = tasks[Symbol.iterator]();
    this.queue = [];
    this.cost = 0;
  }

  /** Null at the end. After a failure the next call tries the same piece again. */
  async next() {
    while (this.cost < CHUNKS_AHEAD && this.queue.length < TASKS_AHEAD) {
      const { done, value } = this.tasks.next();
      if (done) break;
      this.queue.push({ ...value, running: null });
      this.cost += value.cost;
    }
    for (const task of this.queue) {
      if (!task.running) {
        task.running = task.run();
        // It is looked at when its turn comes.
        task.running.catch(() => {});
      }
    }
    if (this.queue.length === 0) return null;
    const [task] = this.queue;
    try {
      const bytes = await task.running;
      this.queue.shift();
      this.cost -= task.cost;
      return task.finish ? task.finish(bytes) : bytes;
    } catch (error) {
      for (const waiting of this.queue) waiting.running = null;
      throw error;
    }
  }
}
