// What PyTorch's core asks of CUDA before it lets tensors say that they are there: a device guard,
// hooks, generators and pinned memory. Nothing is computed here; simulated_cuda.py does, on the CPU.

#include <mutex>
#include <unordered_set>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Generator.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

const at::Device GPU(at::DeviceType::CUDA, 0);

struct Guard final : c10::impl::NoOpDeviceGuardImpl<at::DeviceType::CUDA> {
  at::Device exchangeDevice(at::Device) const override { return GPU; }
  at::Device getDevice() const override { return GPU; }
  c10::Stream getStream(at::Device) const noexcept override { return stream(); }
  c10::Stream getNewStream(at::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, GPU); }
};

// A generator that says it belongs to the GPU; its numbers are those of the CPU's.
struct GPUGenerator final : at::CPUGeneratorImpl {
  explicit GPUGenerator() : at::CPUGeneratorImpl() { device_ = GPU; }
};

std::mutex mutex;
std::unordered_set<const void*> pinned;  // addresses where pinned memory begins

void release(void* address) {
  const std::lock_guard<std::mutex> lock(mutex);
  pinned.erase(address);
  c10::free_cpu(address);
}

struct PinnedMemory final : at::Allocator {
  at::DataPtr allocate(size_t bytes) override {
    void* address = c10::alloc_cpu(bytes);
    const std::lock_guard<std::mutex> lock(mutex);
    pinned.insert(address);
    return {address, address, &release, at::Device(at::DeviceType::CPU)};
  }
  at::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    default_copy_data(to, from, count);
  }
};

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(at::DeviceIndex) const override { return true; }
  at::DeviceIndex current_device() const override { return 0; }
  at::DeviceIndex deviceCount() const override { return 1; }
  at::DeviceIndex getCurrentDevice() const override { return 0; }
  int getNumGPUs() const override { return 1; }
  void setCurrentDevice(at::DeviceIndex) const override {}
  void deviceSynchronize(at::DeviceIndex) const override {}
  at::DeviceIndex exchangeDevice(at::DeviceIndex) const override { return 0; }
  at::DeviceIndex maybeExchangeDevice(at::DeviceIndex) const override { return 0; }
  at::Generator getNewGenerator(at::DeviceIndex) const override {
    return at::make_generator<GPUGenerator>();
  }
  const at::Generator& getDefaultGenerator(at::DeviceIndex) const override {
    static const at::Generator generator = at::make_generator<GPUGenerator>();
    return generator;
  }
  at::Allocator* getPinnedMemoryAllocator() const override {
    static PinnedMemory memory;
    return &memory;
  }
  bool isPinnedPtr(const void* address) const override {
    const std::lock_guard<std::mutex> lock(mutex);
    return pinned.count(address) > 0;
  }
};

}  // namespace

namespace at {
using CUDAHooks = Hooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

extern "C" void register_simulated_cuda() {
  c10::impl::registerDeviceGuard(at::DeviceType::CUDA, new Guard());
}
