// The table of a build's kernels, written after the text of the kernel file by build.py.
//
// A kernel's type says what its arguments are, so the table does too, and a launch can be
// refused for a wrong one. On a GPU nothing would notice.
#pragma once
#include "runtime.h"

namespace emulator {

template <class T>
constexpr char kind_of() {
  if (std::is_void<T>::value) return 'v';
  if (std::is_floating_point<T>::value) return 'f';
  if (std::is_integral<T>::value) return std::is_signed<T>::value ? 'i' : 'u';
  return 's';
}
template <class T>
constexpr int bytes_of() {
  if constexpr (std::is_void<T>::value)
    return 0;
  else
    return sizeof(T);
}

template <class A>
constexpr Parameter parameter() {
  if constexpr (std::is_pointer<A>::value) {
    using Element = typename std::remove_pointer<A>::type;
    using Plain = typename std::remove_cv<Element>::type;
    return {'p', kind_of<Plain>(), sizeof(A), bytes_of<Plain>(), std::is_const<Element>::value};
  } else {
    return {kind_of<A>(), 0, sizeof(A), 0, false};
  }
}

template <class... A>
struct Signature {
  static constexpr Parameter parameters[sizeof...(A) + 1] = {parameter<A>()..., {}};

  template <size_t... I>
  EMULATOR_OWN static void apply(void (*kernel)(A...), void* const* arguments,
                                 std::integer_sequence<size_t, I...>) {
    kernel(*static_cast<typename std::remove_const<A>::type*>(arguments[I])...);
  }
  EMULATOR_OWN static void call(void (*function)(), void* const* arguments) {
    apply(reinterpret_cast<void (*)(A...)>(function), arguments, std::index_sequence_for<A...>());
  }
};

template <class... A>
Kernel kernel(const char* name, void (*function)(A...), int most_threads) {
  return {name, reinterpret_cast<void (*)()>(function), Signature<A...>::call,
          Signature<A...>::parameters, sizeof...(A), most_threads};
}

template <class T>
Variable variable(const char* name, T& value, bool constant) {
  using Plain = typename std::remove_cv<T>::type;
  return {name, const_cast<Plain*>(&value), sizeof value, constant};
}

}  // namespace emulator
