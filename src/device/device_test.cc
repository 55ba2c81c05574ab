#include "device/device.h"

#include <gmock/gmock.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

namespace cachalot {
namespace {

using ::testing::HasSubstr;

bool is_mapped(const void* page) {
  return msync(const_cast<void*>(page), 4096, MS_ASYNC) == 0 || errno != ENOMEM;
}

TEST(Device, GivesAlignedZeroedMemoryOfAtLeastTheSize) {
  for (size_t size : {size_t{1}, size_t{4095}, size_t{4096}, size_t{5000}, (size_t{2} << 20) - 1, size_t{2} << 20,
                      (size_t{5} << 20) + 1}) {
    const Buffer buffer = std::move(Device::allocate(size).value());
    ASSERT_GE(buffer.size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % (size < (size_t{2} << 20) ? 4096 : size_t{2} << 20), 0u)
        << size;
    for (size_t offset = 0; offset < size; offset += 512) ASSERT_EQ(buffer.data()[offset], std::byte{0});
    std::memset(buffer.data(), 0xff, buffer.size());
  }
}

TEST(Device, NothingIsAnEmptyBuffer) {
  const Buffer buffer = std::move(Device::allocate(0).value());
  EXPECT_EQ(buffer.data(), nullptr);
  EXPECT_EQ(buffer.size(), 0u);
}

TEST(Device, TouchesNoPageBeforeItIsUsed) {
  const Buffer buffer = std::move(Device::allocate(size_t{1} << 36).value());  // more than this machine may have
  buffer.data()[size_t{1} << 35] = std::byte{1};
  unsigned char resident = 1;
  ASSERT_EQ(mincore(buffer.data(), 4096, &resident), 0);
  EXPECT_EQ(resident & 1, 0);
}

TEST(Device, RefusesWhatCannotBeHadAndSaysHowMuchItWas) {
  const Result<Buffer> buffer = Device::allocate(size_t{1} << 60);
  ASSERT_FALSE(buffer.has_value());
  EXPECT_EQ(buffer.error().code, ErrorCode::kOutOfMemory);
  EXPECT_THAT(buffer.error().message, HasSubstr("1152921504606846976 bytes"));
}

TEST(Buffer, GivesItsMemoryBackOnceWhenTheOwnerGoes) {
  const std::byte* data = nullptr;
  {
    Buffer first = std::move(Device::allocate(4 << 20).value());
    data = first.data();
    Buffer second = std::move(first);
    EXPECT_EQ(first.data(), nullptr);  // NOLINT(bugprone-use-after-move): a moved buffer is empty
    EXPECT_EQ(second.data(), data);
    first = std::move(second);
    EXPECT_TRUE(is_mapped(data));
  }
  EXPECT_FALSE(is_mapped(data));
}

TEST(Buffer, ViewsItsFirstElements) {
  const Buffer buffer = std::move(Device::allocate(4096).value());
  const View<float, 2> view = buffer.view<float>(32, 32);
  view(31, 31) = 5;
  EXPECT_EQ(reinterpret_cast<const float*>(buffer.data())[1023], 5);
  EXPECT_DEATH((void)buffer.view<float>(32, 33), "view of 4224 bytes on a buffer of 4096");
}

}  // namespace
}  // namespace cachalot
