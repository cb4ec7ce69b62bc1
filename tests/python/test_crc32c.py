"""CRC-32C in numpy against the package crc32c."""

import os
import random
import threading
import unittest

import crc32c as oracle
import numpy as np
import support  # pylint: disable=unused-import

from qkscope import crc32c


class Crc32cTest(unittest.TestCase):

    def test_known_values(self):
        # RFC 3720, B.4.
        self.assertEqual(crc32c.numpy_crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c.numpy_crc32c(b"\xff" * 32), 0x62A8AB43)
        self.assertEqual(crc32c.numpy_crc32c(bytes(range(32))), 0x46DD794E)
        self.assertEqual(crc32c.numpy_crc32c(b"123456789"), 0xE3069283)

    def test_every_size(self):
        edges = [63, 64, 65, 5684, 5685, 5686, 5749, 10008, 10009, 11369,
                 11370, 11371, 17055, 22740, 22741, 45481, 262143, 262144,
                 262145, 1 << 20]
        for size in [*range(70), *edges]:
            data = os.urandom(size)
            with self.subTest(size=size):
                self.assertEqual(crc32c.numpy_crc32c(data),
                                 oracle.crc32c(data))

    def test_random_sizes(self):
        rng = random.Random(3)
        for _ in range(300):
            data = rng.randbytes(rng.randrange(1, 200000))
            self.assertEqual(crc32c.numpy_crc32c(data), oracle.crc32c(data))

    def test_read_only_and_unaligned(self):
        data = memoryview(os.urandom(300001))[1:]
        before = bytes(data)
        self.assertEqual(crc32c.numpy_crc32c(data), oracle.crc32c(before))
        self.assertEqual(bytes(data), before)
        array = np.frombuffer(data, np.uint8)
        self.assertEqual(crc32c.numpy_crc32c(array), oracle.crc32c(before))

    def test_combine(self):
        rng = random.Random(4)
        for _ in range(200):
            first = rng.randbytes(rng.randrange(1000))
            second = rng.randbytes(rng.choice([0, 1, 3, 64, 70000]))
            self.assertEqual(
                crc32c.combine(oracle.crc32c(first), oracle.crc32c(second),
                               len(second)),
                oracle.crc32c(first + second))

    def test_threads(self):
        data = [os.urandom(100000 + i) for i in range(8)]
        wrong = []

        def work():
            for piece in data * 10:
                if crc32c.numpy_crc32c(piece) != oracle.crc32c(piece):
                    wrong.append(len(piece))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main()
