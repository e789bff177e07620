// The elements' type, REAL: float, unless a build says otherwise (-DREAL=double).
#pragma once

#ifndef REAL
#define REAL float
#endif
