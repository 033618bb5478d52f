// One thread: instantiates the kernels over the shared memory and serves commands until told to leave.
self.onmessage = ({ data: { module, memory, thread, control } }) => {
  try {
    const { exports } = new WebAssembly.Instance(module, { env: { memory, now: () => performance.now() } });
    self.postMessage({ ready: true });
    exports.serve(thread, control);
  } catch (error) {
    self.postMessage({ error: String(error?.message ?? error) });
  }
  self.close();
};
